"""The page as people get it: in a real browser, without a network."""

import json
import shutil

import pytest

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromium = chromium or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium and chromedriver here (Debian: chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options, Service(driver))
    window.get("about:blank")  # the browser's own first page loads icons while ours does
    yield window
    window.quit()


@pytest.fixture(scope="module")
def address(real_report):
    return (real_report / "report.html").as_uri()


def size(browser, width, dark=False):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # or a click meets a moving page
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})


@pytest.fixture
def page(browser, address):
    size(browser, 1280)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what earlier tests left
    browser.get(address)
    return browser


def column(page, name):
    """Texts of one column of the table of cells, top to bottom, a list a data set."""
    return page.execute_script(
        """const heads = [...document.querySelectorAll('#cells thead th')];
        const at = heads.findIndex((head) => head.textContent.trim() === arguments[0]);
        return [...document.querySelectorAll('#cells tbody')].map((body) =>
            [...body.querySelectorAll('tr:not(.group)')].map(
                (row) => row.cells[at].innerText.trim()));""",
        name,
    )


def heading(page, name):
    from selenium.webdriver.common.by import By

    return page.find_element(By.XPATH, f"//*[@id='cells']//thead//th[normalize-space()='{name}']")


def test_it_loads_with_no_console_error_and_no_request_to_anywhere(page, address):
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requested = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert address in requested
    assert all(url == address or url.startswith("data:") for url in requested)


def test_the_figures_are_there_and_have_a_size(page):
    sizes = page.execute_script(
        """return [...document.querySelectorAll('main svg, main img')].map((shown) => {
            const box = shown.getBoundingClientRect(); return [box.width, box.height]; });"""
    )
    assert len(sizes) >= 12
    assert all(width > 80 and height > 80 for width, height in sizes)
    loaded = "return [...document.images].every((i) => i.complete && i.naturalWidth)"
    assert page.execute_script(loaded)
    drawn = "return document.querySelectorAll('#figure4 svg .mark').length"
    assert page.execute_script(drawn) >= 12


def test_no_word_of_a_chart_is_cut_off(page):
    cut = page.execute_script(
        """const cut = [];
        for (const chart of document.querySelectorAll('main svg')) {
          const box = chart.getBoundingClientRect();
          for (const words of chart.querySelectorAll('text')) {
            const its = words.getBoundingClientRect();
            if (its.left < box.left - 1 || its.right > box.right + 1 ||
                its.top < box.top - 1 || its.bottom > box.bottom + 1) cut.push(words.textContent);
          }
        }
        return cut;"""
    )
    assert cut == []


def test_a_sort_sorts_both_ways_and_leaves_empty_cells_last(page):
    head = heading(page, "test")
    for direction, order in (("ascending", 1), ("descending", -1)):
        head.find_element("tag name", "button").click()
        assert head.get_attribute("aria-sort") == direction
        ours, theirs = column(page, "test")
        for cells, absent in ((ours, {"failed", "not run"}), (theirs, set())):
            numbers = [float(text) for text in cells if text[0].isdigit()]
            assert len(numbers) >= 2
            assert numbers == sorted(numbers)[::order]
            assert set(cells[len(numbers) :]) == absent
        groups = page.execute_script(
            "return [...document.querySelectorAll('#cells tbody')].map((b) => b.rows[0].className)"
        )
        assert groups == ["group", "group"]
    sorts = page.execute_script(
        "return [...document.querySelectorAll('#cells th[aria-sort]')].map((h) => h.ariaSort)"
    )
    assert sorts.count("none") == len(sorts) - 1


def test_a_filter_leaves_one_panel(page):
    from selenium.webdriver.support.select import Select

    Select(page.find_element("id", "filter")).select_by_value("2")
    shown = "return [...document.querySelectorAll('#cells tbody')].map((b) => b.offsetHeight > 0)"
    assert page.execute_script(shown) == [False, True]
    parts = "return [...document.querySelectorAll('article')].filter((a) => a.offsetHeight > 0)"
    panels = page.execute_script(f"{parts}.map((a) => a.dataset.panel)")
    assert set(panels) == {"2"}


def test_a_cell_shows_its_run_to_the_keyboard_and_escape_hides_it(page):
    from selenium.webdriver.common.keys import Keys

    button = page.find_element("css selector", "#cells .tip")
    page.execute_script("arguments[0].focus()", button)
    tooltip = page.find_element("id", "tooltip")
    assert tooltip.is_displayed()
    assert "95 % interval" in tooltip.text
    assert "phantom_xray-none" in tooltip.text
    button.send_keys(Keys.ESCAPE)
    assert not tooltip.is_displayed()


def test_a_failed_cell_shows_why(page):
    (failed,) = page.find_elements("css selector", "#cells .tip.bad")[:1]
    page.execute_script("arguments[0].focus()", failed)
    found = page.find_element("id", "tooltip").text
    assert "DP-SGD β=4, test: failed" in found
    assert "no folder" in found or "Not a directory" in found or "File exists" in found


def test_it_follows_the_systems_dark_and_light_until_the_button_is_pressed(page, address):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(paper)
    size(page, 1280, dark=True)
    page.get(address)
    dark = page.execute_script(paper)
    assert dark != light
    page.find_element("id", "theme").click()
    assert page.execute_script(paper) == light


CONTRAST = """
const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const channel = (c) => linear(c / 255);
const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = numbers(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const low = [];
for (const element of document.querySelectorAll('body *')) {
  const words = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!words || !element.getClientRects().length || ['SCRIPT', 'STYLE'].includes(element.tagName))
    continue;
  const style = getComputedStyle(element);
  const ink = numbers(element.closest('svg') ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(ground(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push([element.tagName, element.textContent.trim().slice(0, 40), ratio]);
}
return low;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_words_have_the_contrast_that_wcag_aa_asks(page, address, dark):
    size(page, 1280, dark)
    page.get(address)
    assert page.execute_script(CONTRAST) == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_but_tables_and_charts_scrolls_sideways(page, address, width):
    size(page, width)
    page.get(address)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    smallest = page.execute_script(
        "return Math.min(...[...document.querySelectorAll('p, td')].map("
        "(e) => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 12


def test_it_prints_with_all_of_the_table_on_the_paper(page):
    import base64

    size(page, 1000)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    over = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter("
        "(box) => box.scrollWidth > document.documentElement.clientWidth).length"
    )
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert over == 0
    pdf = page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
