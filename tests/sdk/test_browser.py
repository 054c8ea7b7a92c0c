"""The hub in a browser: the page that the emulator's link opens, in Chromium."""

import json

import pytest
from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse
from pyharness import browser
from standard_hub import ADDRESS, standard_hub

# Markup that would run, a colour for a terminal, and words from right to left.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></pre><script>document.title='owned'</script>\u001b[31m\u202eright"

# Text whose contrast to what is behind it is less than WCAG asks for (AA): 4.5.
FAINT = """(() => {
  const light = ([r, g, b]) => {
    const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${element.tagName} ${element.textContent.slice(0, 20)}: ${contrast}`);
  }
  return faint;
})()"""


@pytest.fixture
def hub(tmp_path):
    with standard_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def page(hub, tmp_path):
    if browser.installed() is None:
        pytest.skip("left out: the hub in a browser (no chromium)")
    with browser.Browser(tmp_path / "profile", browser.fingerprint(ADDRESS, hub.https_port)) as page:
        yield page


@pytest.fixture
def device(hub):
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device_file("gw1").read_text().strip(), server_verification_cert=hub.ca_file.read_text()
    )
    yield client
    client.shutdown()


def link(hub, policy="iothubowner"):
    return hub.emulator("browse", "--policy", policy).strip()


def call(page, method, payload):
    page.run(f"""(() => {{
      document.getElementById("method").value = {json.dumps(method)};
      document.getElementById("payload").value = {json.dumps(payload)};
      document.getElementById("send").click();
    }})()""")


def test_the_page_shows_the_hub_as_it_changes(hub, page, device, registry, tmp_path):
    printed = hub.process.wait_for(r"by this link once: (https://\S+)").match[1]
    page.open(printed)
    page.when("document.getElementById('devices').rows.length === 1")
    assert page.run("location.search") == "", "the ticket does not stay in the address"
    assert page.run("document.cookie") == "", "no script can read the cookie"

    # By keys alone: to the device, and into it.
    for _ in range(9):
        page.press("Tab")
        if page.run("document.activeElement.textContent") == "gw1":
            break
    page.press("Enter", "\r")
    page.when("!document.getElementById('twin').hidden")
    assert "Disconnected" in page.text("twin-state")

    device.on_method_request_received = lambda request: device.send_method_response(
        MethodResponse.create_from_method_request(request, 207, {"got": request.payload, "said": HOSTILE})
    )
    device.connect()
    page.when("document.querySelector('#devices .connected') !== null")
    device.patch_twin_reported_properties({"said": HOSTILE, "agent": {"methods": ["restartApp"]}})
    page.when("document.getElementById('reported').textContent.includes('said')")
    assert page.run("document.querySelector('#methods option').value") == "restartApp"
    hub.done("twin", "update", "gw1", "--desired", '{"interval":7}')
    page.when("document.querySelector('#desired .new') !== null")
    assert '"interval": 7' in page.run("document.querySelector('#desired .new').textContent")

    message = Message(json.dumps({"temperature": 21.5, "said": HOSTILE}))
    message.custom_properties["unit"] = "C"
    device.send_message(message)
    page.when("document.getElementById('event-list').textContent.includes('21.5')")
    assert "unit" in page.text("event-list") and "updateTwin" in page.text("event-list")

    call(page, "restartApp", '{"id": 9007199254740993}')
    page.when("document.getElementById('answer').textContent.startsWith('Status 207')")
    answer = page.text("answer")
    assert "9007199254740993" in answer, "numbers are not rounded"
    assert "<img" in answer
    call(page, "restartApp", "{nonsense")
    page.when("document.getElementById('payload-error').textContent.includes('not JSON')")

    # A module comes, and a device goes.
    hub.done("device", "create", "gw2")
    registry.create_module_with_sas("gw1", "app", "me", "", "")
    page.when("document.getElementById('devices').textContent.includes('gw1/app')")
    assert page.run("[...document.querySelectorAll('#devices button')].map((b) => b.textContent)") == ["gw1", "gw1/app", "gw2"]
    hub.done("device", "delete", "gw2", "--yes")
    page.when("!document.getElementById('devices').textContent.includes('gw2')")
    page.run("[...document.querySelectorAll('#devices button')][1].click()")
    page.when("document.getElementById('detail-title').textContent === 'gw1/app' && !document.getElementById('twin').hidden")
    call(page, "x", "")
    page.when("document.getElementById('answer').textContent.startsWith('The hub refused with 404')")
    page.run("[...document.querySelectorAll('#devices button')][0].click()")
    page.when("document.getElementById('detail-title').textContent === 'gw1' && !document.getElementById('twin').hidden")

    # What strangers say is text, with everything unseen written out.
    whole = page.run("document.body.innerText")
    assert "\u202e" not in whole and "\u001b" not in whole and "\\u{202e}" in whole
    assert page.run("document.title") == "iotdm-emulator" and page.run("document.images.length") == 0

    # Every control has a name for a screen reader.
    controls = {"button", "textbox", "searchbox", "checkbox", "spinbutton", "combobox", "link"}
    nodes = page.tell("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if node.get("role", {}).get("value") in controls]
    assert len(found) >= 7 and all(node["name"]["value"] for node in found), found

    # Wide and narrow, light and dark.
    for scheme in ("light", "dark"):
        page.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for width in (1280, 320):
            page.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            assert page.run("document.documentElement.scrollWidth") <= width
            page.picture(tmp_path / f"{scheme}-{width}.png")
        assert page.run(FAINT) == [], scheme

    # A refused call is an answer and no fault of the page.
    assert [fault for fault in page.faults if "status of 404" not in fault] == []
    origin = f"https://{ADDRESS}:{hub.https_port}/"
    assert all(url.startswith((origin, "data:,")) for url in page.requests), page.requests

    # The hub goes, and the page says so; a visit ends with the process.
    hub.kill()
    page.when("document.getElementById('state').textContent.includes('trying again')")
    # Each start has a certificate of its own, which the browser was not told of.
    page.tell("Security.setIgnoreCertificateErrors", ignore=True)
    hub.start()
    page.when("document.getElementById('state').textContent.includes('iotdm-emulator browse')")


def test_who_may_see_devices_alone_sees_no_more(hub, page, device):
    device.connect()
    page.open(link(hub, "registryRead"))
    page.when("document.querySelector('#devices .connected') !== null")
    page.run("document.querySelector('#devices button').click()")
    page.when("document.getElementById('twin-state').textContent.includes('registryRead')")
    hidden = "['twin', 'call', 'events'].every((id) => document.getElementById(id).hidden)"
    assert page.run(hidden) is True
    path = "/emulator/glass/twins/gw1"
    status = "fetch('%s', {method: '%s', body: '{\"methodName\":\"x\"}'.slice(0, %d) || undefined}).then((r) => r.status)"
    assert page.run(status % (path, "GET", 0)) == 401
    assert page.run(status % (path + "/methods", "POST", 99)) == 401
    assert "updateTwin" not in page.run("document.body.innerHTML")


def test_a_link_lets_one_browser_in(hub, page):
    once = link(hub)
    page.open(f"https://{ADDRESS}:{hub.https_port}/")
    page.when("document.body.innerText.includes('iotdm-emulator browse')")
    page.open(once)
    page.when("document.getElementById('devices')?.rows.length === 1")
    page.tell("Network.clearBrowserCookies")
    page.open(once)
    page.when("document.body.innerText.includes('used already')")


def test_the_test_of_contrast_finds_what_is_faint(page):
    page.open("data:text/html,<body style='background:white'><p style='color:rgb(200,200,200)'>faint")
    assert len(page.run(FAINT)) == 1


def test_the_emulator_stops_at_once_while_somebody_looks(hub, page):
    page.open(link(hub))
    page.when("document.getElementById('devices')?.rows.length === 1")
    hub.stop()
    assert "did not end in time" not in hub.log()
