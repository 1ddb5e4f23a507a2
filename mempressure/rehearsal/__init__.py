"""Rehearsing what unloading a package does, in throw-away processes: how verdicts come about.

`rehearsal` leads it and returns the verdict; `trial` runs one throw-away process, `stage` is what runs in it;
`import_costs` and `comparison` measure and compare there; `judgement` decides.
"""
