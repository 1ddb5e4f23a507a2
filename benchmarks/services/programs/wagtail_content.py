"""Fills a new wagtail site: pages, a picture, and a user, whose session's cookie it prints."""

import io

import django

django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model  # noqa: E402 -- set up first
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402 -- as above
from django.core.files.images import ImageFile  # noqa: E402 -- as above
from home.models import HomePage  # noqa: E402 -- as above
from PIL import Image as Picture  # noqa: E402 -- as above
from wagtail.images.models import Image  # noqa: E402 -- as above

PAGES = 20
TEN_YEARS = 10 * 365 * 86400

home = HomePage.objects.get()
for number in range(PAGES):
    page = home.add_child(instance=HomePage(title=f"Page number {number}", slug=f"page-{number}"))
    page.save_revision().publish()
picture = io.BytesIO()
Picture.new("RGB", (1600, 1200), (200, 30, 60)).save(picture, "JPEG")
Image.objects.create(title="picture", file=ImageFile(picture, name="picture.jpg"))
user = get_user_model().objects.create_superuser("admin", "admin@example.com", "admin")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.set_expiry(TEN_YEARS)
session.save()
print(f"sessionid={session.session_key}")
