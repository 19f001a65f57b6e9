"""The report in Chromium: nothing from outside, nothing wider than its window, both themes."""

import pytest
from in_browser import quiet_page

from glpi_jax.report import write_report

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (1300, "dark")])
def test_a_report(tmp_path, results, write_run, width, theme):
    path = write_report(write_run(tmp_path, results))
    requested = []
    with quiet_page(width) as page:
        page.on("request", lambda request: requested.append(request.url))
        page.emulate_media(color_scheme=theme)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for detail in page.locator("details").all():
            detail.evaluate("detail => detail.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        plots = page.locator("picture").all()
        assert len(plots) == 5
        for plot in plots:
            image, other = plot.locator("img"), plot.locator("source").get_attribute("srcset")
            assert image.is_visible()
            assert image.evaluate("image => image.naturalWidth") >= 200
            assert (image.evaluate("image => image.currentSrc") == other) == (theme == "dark")
    assert all(url.startswith(("file:", "data:")) for url in requested)
