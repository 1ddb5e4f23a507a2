"""The status page's routes: the page itself, and the forms that sign in, unload packages and set thresholds.

Everything works without JavaScript: a form that was carried out is answered by a redirect, a refused one by the page
with the input kept and the error shown.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from mempressure import __version__, units
from mempressure.config.thresholds import THRESHOLD_NAMES
from mempressure.decide.inventory import inventory
from mempressure.errors import ConfigurationError, MempressureError
from mempressure.measure.pressure import MeasureError
from mempressure.state.records import MAX_NAME_LENGTH
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import require_size
from mempressure_actuator.page import content, threshold_form
from mempressure_actuator.page.notices import Notice, Notices
from mempressure_actuator.page.roles import PART_NAMES
from mempressure_actuator.page.sign_in import FOREIGN, MISSING, SignIn
from mempressure_actuator.store.history import HistoryQuery
from mempressure_actuator.store.owned_database import StoreError

_log = logging.getLogger(__name__)

CYCLES_SHOWN = 12
CYCLES_MARKED = 200
"""The newest cycles; the charts mark those that gave memory back within the hour."""
REFRESH_SECONDS = 5
"""How often a visible page refreshes itself."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with it, browsers send "Origin: null" with this page's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A form as it was sent: which one, and its contents."""

    form: str
    fields: tuple[threshold_form.Field, ...] = ()
    app: str = ""
    package: str = ""
    force: bool = False


class StatusPage:
    """The handlers of the routes.

    Args:
        actuator: shown, and asked for changes.
        sign_in: authorises the forms.
    """

    def __init__(self, actuator: Actuator, sign_in: SignIn) -> None:
        self._actuator = actuator
        self._sign_in = sign_in
        self._notices = Notices()

    def status_page(self) -> Response:
        """Show memory, packages and history to people, with forms to change something."""
        return self._page()

    def sign_in(self) -> Response:
        """Open a session if the form has the token."""
        sent = Sent(form="sign-in")
        if not request.form.get("token", "").strip():
            return self._page(sent, problem=MISSING.message, status=MISSING.status)
        return self._refused(sent) or self._done()

    def sign_out(self) -> Response:
        """End the session."""
        if not self._sign_in.is_same_origin():
            return self._page(Sent(form="sign-in"), problem=FOREIGN.message, status=FOREIGN.status)
        response = _to_page()
        self._sign_in.forget(response)
        return response

    def set_thresholds(self) -> Response:
        """Set the four thresholds."""
        hysteresis = self._actuator.settings.current().thresholds.hysteresis
        fields, ratios = threshold_form.read(request.form, hysteresis=hysteresis)
        sent = Sent(form="thresholds", fields=fields)
        if (refused := self._refused(sent)) is not None:
            return refused
        if not ratios:
            return self._page(sent, problem="Nothing was changed: see the errors at the fields.", status=400)
        try:
            self._actuator.settings.set_thresholds(ratios)
        except ConfigurationError as error:
            return self._page(sent, problem=f"Nothing was changed: {error}.", status=400)
        except OSError as error:
            self._actuator.metrics.store_errors.inc()
            _log.error("settings not stored: reason=%s", error)
            problem = f"Nothing was changed, the settings could not be stored: {error.strerror}. Send it again later."
            return self._page(sent, problem=problem, status=503)
        _log.info("thresholds set: %s", " ".join(f"{name}={value}" for name, value in ratios.items()))
        values = ", ".join(
            f"{threshold_form.LABELS[n]} {threshold_form.percentage(ratios[n])} %" for n in THRESHOLD_NAMES
        )
        return self._done(Notice(sentences=(f"Thresholds set: {values}",)))

    def unload(self) -> Response:
        """Unload a package now; the answer follows when that is done."""
        app, package = (request.form.get(name, "")[: MAX_NAME_LENGTH + 1] for name in ("app", "package"))
        sent = Sent(form="unload", app=app, package=package, force=request.form.get("force") == "true")
        if (refused := self._refused(sent)) is not None:
            return refused
        try:
            results = self._actuator.requests.unload(package, app=app, force=sent.force)
        except MempressureError as error:
            return self._page(sent, problem=f"Nothing was unloaded: {error}.", status=503)
        not_unloaded = package if any(result["skipped_reason"] for result in results) and not sent.force else ""
        sentences = tuple(content.unloaded_sentences(results))
        return self._done(Notice(sentences=sentences, app=app, not_unloaded=not_unloaded))

    def _refused(self, sent: Sent) -> Response | None:
        refusal = self._sign_in.refusal()
        if refusal is None:
            return None
        _log.warning("form refused: form=%s client=%s reason=%r", sent.form, request.remote_addr, refusal.message)
        return self._page(sent, problem=refusal.message, status=refusal.status)

    def _done(self, notice: Notice | None = None) -> Response:
        return _to_page(self._notices.leave(notice) if notice else "")

    def _page(self, sent: Sent | None = None, *, problem: str = "", status: int = 200) -> Response:
        session = self._sign_in.session()
        shared = {
            "node": self._actuator.node,
            "version": __version__,
            "refresh_seconds": REFRESH_SECONDS,
            "session": session,
            "sent": sent,
            "problem": problem,
            "notice": self._notices.take(request.args.get("notice", "")),
        }
        if not self._sign_in.may_read():
            return make_response(render_template("signed_out.html", **shared), status if sent else 401)
        try:
            measured = self._measured()
        except MeasureError as error:
            return make_response(render_template("not_measured.html", error=str(error), **shared), 503)
        return make_response(render_template("status.html", **measured, **shared), status)

    def _measured(self) -> dict[str, object]:
        """Return the template's variables about the node.

        Raises:
            MeasureError: the host cannot be measured.
        """
        actuator = self._actuator
        reading, observation = actuator.evaluate()
        settings = actuator.settings.current()
        cycles, history_error = [], ""
        try:
            cycles = actuator.store.history(HistoryQuery(limit=CYCLES_MARKED))[0]
        except StoreError as error:
            actuator.metrics.store_errors.inc()
            history_error = str(error)
        scopes = content.scope_views(
            observation,
            inventory(reading, settings),
            samples=lambda scope: actuator.usage.samples(scope, now=observation.sampled),
            cycles=cycles,
        )
        return {
            "scopes": scopes,
            "apps": scopes[1:],
            "part_names": PART_NAMES,
            "observation": observation,
            "announcement": content.announcement(scopes),
            "suggestions": observation.suggestions(),
            "fields": threshold_form.fields_of(settings.thresholds),
            "hysteresis": threshold_form.percentage(settings.thresholds.hysteresis),
            "cycles": content.cycle_views(cycles[:CYCLES_SHOWN], now=time.time()),
            "history_error": history_error,
            "runtime_directory": actuator.configuration.runtime_directory,
            "dry_run": actuator.dry_run,
            "loop_alive": actuator.loop.alive,
            "autonomous": actuator.loop.autonomous,
            "heartbeat": actuator.loop.seconds_since_heartbeat(),
        }


def create_blueprint(actuator: Actuator, *, access: Access) -> Blueprint:
    """Return the page at `/`, and its forms.

    Args:
        actuator: shown, and asked for changes.
        access: the access rules; its token opens a session. Where reads need credentials, the page needs a session.
    """
    sign_in = SignIn(access)
    page = StatusPage(actuator, sign_in)
    blueprint = Blueprint("page", __name__, template_folder="templates", static_folder="static")
    blueprint.app_template_filter("duration")(units.duration)
    blueprint.app_template_filter("clock")(_clock)
    blueprint.app_template_filter("ago")(content.ago)
    blueprint.before_request(access.check_host)
    blueprint.before_request(require_size)
    blueprint.after_request(partial(_harden, access))
    blueprint.after_request(sign_in.remember)
    blueprint.add_url_rule("/", "status_page", page.status_page, methods=["GET"])
    for path, act in {
        "/sign-in": page.sign_in,
        "/sign-out": page.sign_out,
        "/thresholds": page.set_thresholds,
        "/unload": page.unload,
    }.items():
        blueprint.add_url_rule(path, act.__name__, act, methods=["POST"])
        # Opening the address of a form's answer shows the page.
        blueprint.add_url_rule(path, f"{act.__name__}_again", _to_page, methods=["GET"])
    return blueprint


def _to_page(notice: str = "") -> Response:
    # To the notice, so that keyboard focus continues there.
    target = url_for("page.status_page", notice=notice, _anchor="notice") if notice else url_for("page.status_page")
    return redirect(target, 303)


def _harden(access: Access, response: Response) -> Response:
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = access.challenge()
    for name, value in HEADERS.items():
        if not (name == "Cache-Control" and request.endpoint == "page.static"):
            response.headers[name] = value
    return response


def _clock(unix_time: float) -> str:
    """Return a time of day: 20:05:18 UTC."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(unix_time))
