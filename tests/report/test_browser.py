"""The report as a person gets it: in a real browser, light and dark, wide and narrow."""

import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CURVES = ("pass-at-1", "pass-at-k", "submit-rate", "mean-turns")


def find_program(*names):
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.fail(
            f"this test needs a browser: none of {', '.join(names)} is on PATH (Debian: chromium chromium-driver)"
        )
    return found


@pytest.fixture(scope="module")
def browser(finished_run, tmp_path_factory):
    """A headless browser that has opened the report from its file."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_program(*BROWSERS)
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    options.add_argument("--disable-background-networking")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(find_program("chromedriver")))
    driver.set_window_size(1200, 1400)
    driver.get((finished_run[0] / "report.html").as_uri())
    yield driver
    driver.quit()


def points(browser, curve, line):
    """The drawn points of one line of a curve, left to right: their centres on the page, in pixels."""
    find = f"#curve-{curve} .{line} .point"
    rectangles = [element.rect for element in browser.find_elements(By.CSS_SELECTOR, find)]
    assert all(rectangle["width"] > 0 for rectangle in rectangles)
    return [(r["x"] + r["width"] / 2, r["y"] + r["height"] / 2) for r in rectangles]


def style(browser, selector, name):
    return browser.find_element(By.CSS_SELECTOR, selector).value_of_css_property(name)


def emulate(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_the_page_loads_without_a_word_on_the_console(browser):
    assert browser.title == "miniature · Turnwise"
    assert browser.get_log("browser") == []


def test_the_table_is_visible_and_says_what_was_measured(browser, finished_run):
    rows = browser.find_elements(By.CSS_SELECTOR, "#stages tbody tr")
    assert all(row.is_displayed() and row.rect["height"] > 20 for row in rows)
    for row, result in zip(rows, finished_run[1], strict=True):
        assert row.text.startswith(result.name)
        assert f"{100 * result.pass_at_1:.1f} ± {100 * result.sem:.2f}" in row.text
        assert f"{100 * result.pass_at_k:.1f} k = {result.k}" in row.text


@pytest.mark.parametrize("curve", CURVES)
def test_each_curve_is_drawn_inside_its_frame(browser, curve):
    frame = browser.find_element(By.ID, f"curve-{curve}")
    box = frame.find_element(By.TAG_NAME, "svg").rect
    assert frame.is_displayed()
    assert box["width"] > 300
    assert box["height"] > 150
    drawn = points(browser, curve, "held-out") + points(browser, curve, "training")
    assert len(drawn) >= 4 + 6  # evaluations at the end of each stage, training iterations with as many attempts
    assert all(box["x"] < x < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"] for x, y in drawn)


def test_the_pass_at_1_curve_shows_the_table(browser, finished_run):
    """Heights on the screen are the table's figures: linear, and the same order from left to right."""
    ends = [point for index, point in enumerate(points(browser, "pass-at-1", "held-out")) if index != 2]
    values = [result.pass_at_1 for result in finished_run[1]]
    assert [x for x, _ in ends] == sorted(x for x, _ in ends)
    pixels_per_unit = (ends[0][1] - ends[-1][1]) / (values[-1] - values[0])
    assert pixels_per_unit > 0
    for (_, y), value in zip(ends, values, strict=True):
        assert ends[0][1] - y == pytest.approx(pixels_per_unit * (value - values[0]), abs=1.5)


def test_an_evaluation_with_another_k_is_no_point_of_pass_at_k(browser):
    assert len(points(browser, "pass-at-1", "held-out")) == 5
    assert len(points(browser, "pass-at-k", "held-out")) == 4


def test_points_say_their_value(browser):
    selector = "#curve-pass-at-1 .held-out .point title"
    said = browser.find_element(By.CSS_SELECTOR, selector).get_attribute("textContent")
    assert said.startswith("base, iteration 0, held-out: ")
    assert "SEM, 4 runs" in said


def test_light_and_dark_are_both_readable(browser):
    seen = set()
    for scheme in ("light", "dark"):
        emulate(browser, scheme)
        paper, ink = style(browser, "body", "background-color"), style(browser, "body", "color")
        line = style(browser, "#curve-pass-at-1 .held-out .point", "fill")
        assert contrast(paper, ink) > 7
        assert contrast(paper, line) > 3
        seen |= {paper, ink, line}
    emulate(browser, "light")
    assert len(seen) == 6


def contrast(one, other):
    """WCAG 2 contrast ratio of two CSS rgb() colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_an_episode_opens_and_tells_its_story(browser):
    episode = browser.find_element(By.CSS_SELECTOR, ".episode.resolved")
    assert "✓ resolved" in episode.text
    assert "grep -rn" not in episode.text
    episode.find_element(By.TAG_NAME, "summary").click()
    story = episode.text
    for told in ("Why it got this reward", "passed", "sliding_window returns one window too few", "grep -rn", "submit"):
        assert told in story
    sampled = episode.find_elements(By.CSS_SELECTOR, ".ribbon i.sampled")
    read = episode.find_elements(By.CSS_SELECTOR, ".ribbon i.read")
    share = sum(i.rect["width"] for i in sampled) / sum(i.rect["width"] for i in sampled + read)
    assert share == pytest.approx(10 / 34, abs=0.01)


def test_the_verdicts_are_counted_by_kind_and_tripwire(browser):
    rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#verdicts tbody tr")]
    assert "suspected 2 frames 2, interpreter 1" in rows
    assert "infrastructure failure 1" in rows
    section = browser.find_element(By.ID, "verdicts").text
    assert "1 of 186 episodes ended with a patch that does not carry all of the agent's work" in section


def test_a_suspected_episode_says_why_and_what_its_patch_lacks(browser):
    find = "//details[contains(@class, 'episode')][.//ul[@class='left-out']]"
    episode = browser.find_element(By.XPATH, find)
    episode.find_element(By.TAG_NAME, "summary").click()
    story = episode.text
    assert "Verdict: suspected, tripwires frames, interpreter (tripwire frames: toolz/it.py: sys._getframe)." in story
    assert "build/pipe: no regular file" in story


def test_a_narrow_screen_needs_no_sideways_scrolling(browser):
    emulation = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulation)
    shown, whole = browser.execute_script("return ['clientWidth', 'scrollWidth'].map(n => document.documentElement[n])")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert 300 < shown <= 390
    assert whole == shown
