"""What the exporter and the actuator share towards the network and the log; the library itself never imports it."""
