from mempressure.http.messages import Headers, Request, Response
from mempressure.http.pages import serve_pages


def request(method="GET", path="/"):
    return Request(method, path, "", Headers())


def test_pages_are_found_by_exact_path_and_read_only():
    answer = serve_pages({"/there": lambda _: Response(200, "text/plain", b"yes")})
    assert [answer(request(path=path)).status for path in ("/there", "/there/", "/", "/There")] == [200, 404, 404, 404]
    refused = answer(request("POST", "/there"))
    assert (refused.status, refused.headers) == (405, (("Allow", "GET, HEAD"),))
