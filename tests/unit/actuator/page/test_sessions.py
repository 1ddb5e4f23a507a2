from mempressure_actuator.page.notices import MAX_NOTICES, Notice, Notices
from mempressure_actuator.page.sessions import MAX_SESSIONS, SESSION_SECONDS, Sessions


def test_a_session_is_found_by_its_cookie_until_it_expires():
    sessions = Sessions()
    cookie = sessions.begin(now=100.0)
    session = sessions.find(cookie, now=100.0 + SESSION_SECONDS - 1)
    assert session.matches(session.form_token)
    assert not session.matches("")
    assert not session.matches(session.form_token + "x")
    assert not session.matches("\udcff")
    assert session.form_token != cookie
    assert sessions.find(cookie, now=100.0 + SESSION_SECONDS) is None
    assert sessions.find(cookie, now=100.0) is None


def test_a_session_that_was_ended_is_not_found_again():
    sessions = Sessions()
    one, other = sessions.begin(now=0.0), sessions.begin(now=0.0)
    sessions.end(one)
    sessions.end("unknown")
    assert sessions.find(one, now=0.0) is None
    assert sessions.find(other, now=0.0) is not None


def test_an_unknown_cookie_opens_nothing():
    sessions = Sessions()
    cookie = sessions.begin(now=0.0)
    for wrong in ("", cookie[:-1], cookie + "=", cookie.swapcase(), "\udcff"):
        assert sessions.find(wrong, now=0.0) is None


def test_cookies_are_not_kept_here():
    sessions = Sessions()
    assert sessions.begin(now=0.0) not in repr(sessions._open)


def test_the_oldest_session_makes_room():
    sessions = Sessions()
    cookies = [sessions.begin(now=0.0) for _ in range(MAX_SESSIONS + 1)]
    assert [sessions.find(cookie, now=0.0) is not None for cookie in (cookies[0], cookies[1], cookies[-1])] == [
        False,
        True,
        True,
    ]


def test_a_notice_is_read_once():
    notices = Notices()
    notice = Notice(sentences=("pandas unloaded",))
    name = notices.leave(notice)
    assert notices.take(name) == notice
    assert notices.take(name) is None


def test_the_oldest_notice_makes_room():
    notices = Notices()
    names = [notices.leave(Notice(sentences=())) for _ in range(MAX_NOTICES + 1)]
    assert notices.take(names[0]) is None
    assert notices.take(names[-1]) is not None
