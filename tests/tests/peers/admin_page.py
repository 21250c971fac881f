"""Drives the admin page in a headless Chromium over its DevTools pipe, as a person with a keyboard would use it.

Arguments: address of the page, an empty folder, name of a forward, address of its backend, and texts that the page must
show. Prints `followed` once every check but the last has passed; then the server may be ended, and the page must report
that. Screenshots are in the folder of PORTLANE_SCREENSHOTS, else in the empty one.
"""

import base64
import json
import os
import select
import subprocess
import sys
import time

PATIENCE = 40  # seconds, for anything that should happen
URL, FOLDER, FORWARD, BACKEND = sys.argv[1:5]
TEXTS = sys.argv[5:]
SHOTS = os.environ.get("PORTLANE_SCREENSHOTS") or FOLDER


class Browser:
    """A browser with one page."""

    def __init__(self):
        commands, self.to = os.pipe()
        self.out, answers = os.pipe()

        def pipes():
            # Chromium reads from 3 and writes to 4. The copies above both keep one from replacing the other.
            high = [os.dup2(fd, 100 + at) for at, fd in enumerate([commands, answers])]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
                   f"--user-data-dir={FOLDER}/profile", "about:blank"]
        log = open(f"{FOLDER}/chromium.log", "wb")
        # A group of its own, so that no process of the browser outlives this script.
        self.process = subprocess.Popen(["chromium", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        close_fds=False, preexec_fn=pipes, start_new_session=True)
        os.close(commands)
        os.close(answers)
        self.buffer, self.next, self.session, self.complaints = b"", 0, None, []

    def message(self, deadline):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.out], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            read = os.read(self.out, 1 << 16)
            if not read:
                raise EOFError("the browser has ended")
            self.buffer += read
        first, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(first)

    def do(self, method, **parameters):
        self.next += 1
        command = {"id": self.next, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.to, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self.message(deadline)
            if message.get("id") == self.next:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.note(message)

    def note(self, message):
        """Keeps what the browser complains about: violations of the page's policy, exceptions, failed loads."""
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(message["params"]["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))

    def open(self, url):
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Log", "Runtime", "Accessibility"]:
            self.do(f"{domain}.enable")
        self.do("Emulation.setScrollbarsHidden", hidden=True)
        self.do("Page.navigate", url=url)

    def read(self, expression):
        result = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, what, expression):
        deadline = time.monotonic() + PATIENCE
        while not self.read(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: the page says {self.read('document.body.innerText')}")
            time.sleep(0.05)

    def press(self, name, code, text=""):
        for kind in ["keyDown", "keyUp"]:
            self.do("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code,
                    text=text if kind == "keyDown" else "")

    def tab_to(self, expression):
        """Presses Tab until the focus is on the node of this expression."""
        for _ in range(60):
            self.press("Tab", 9)
            if self.read(f"document.activeElement === {expression}"):
                outline = self.read("getComputedStyle(document.activeElement).outlineStyle")
                assert outline not in ("none", ""), f"the focus on {expression} cannot be seen"
                return
        raise AssertionError(f"Tab never reaches {expression}")

    def show(self, width, height, scheme, name):
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        widest = self.read("document.documentElement.scrollWidth")
        assert widest <= width, f"at {width} pixels the page is {widest} wide"
        shot = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        with open(f"{SHOTS}/{FORWARD.replace('/', '-')}-{name}.png", "wb") as file:
            file.write(base64.b64decode(shot))

    def end(self):
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait()


def contrast(one, other):
    def luminance(color):
        parts = [float(part) / 255 for part in color[color.index("(") + 1:-1].split(",")[:3]]
        red, green, blue = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


# The colour of each text with the first ground behind it.
COLORS = """[...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
  [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())).map((node) => {
    let ground = node;
    while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    return [node.textContent, getComputedStyle(node).color, getComputedStyle(ground).backgroundColor];
  })"""


def readable(browser, scheme):
    for text, color, ground in browser.read(COLORS):
        found = contrast(color, ground)
        assert found >= 4.5, f"{text!r} has a contrast of {found:.1f} in the {scheme} scheme"


def named(browser):
    """What a screen reader reads: every control and table has a name, and tables are tables at every width."""
    roles = {}
    for node in browser.do("Accessibility.getFullAXTree")["nodes"]:
        if not node.get("ignored"):
            role, name = node["role"]["value"], node.get("name", {}).get("value", "")
            roles.setdefault(role, []).append(name)
    for role in ["button", "link", "searchbox", "table", "columnheader", "image", "region"]:
        assert roles.get(role), f"no {role} in {sorted(roles)}"
        assert all(roles[role]), f"a {role} has no name: {roles[role]}"
    assert "Portlane" in roles["heading"] and "status" in roles, roles
    assert any(name == FORWARD for name in roles["rowheader"]), roles["rowheader"]


def check(browser):
    browser.open(URL)
    browser.until("the forward appears", f"document.getElementById('forwards')?.innerText.includes({FORWARD!r})")
    browser.until("the stream is live", "document.getElementById('status').dataset.state === 'live'")
    browser.until("the chart has samples", "document.getElementById('chart-up').points.length > 1")
    browser.until("events are listed", "document.getElementById('events').children.length > 0")
    assert browser.read("document.documentElement.lang") == "en"

    browser.tab_to("document.querySelector('.skip')")
    details = "document.querySelector('#forwards button')"
    browser.tab_to(details)
    browser.press("Enter", 13, "\r")
    browser.until("the details open", f"{details}.getAttribute('aria-expanded') === 'true'")
    browser.until("the details name the backend", f"document.querySelector('.detail').innerText.includes({BACKEND!r})")
    for text in TEXTS:
        browser.until(f"the page shows {text!r}", f"document.body.innerText.includes({json.dumps(text)})")
    heard = browser.read("document.getElementById('chart-text').textContent")
    browser.until("another state", f"document.getElementById('chart-text').textContent !== {heard!r}")
    assert browser.read(f"document.activeElement === {details}"), "the focus survives another state"

    browser.tab_to("document.getElementById('sessions-button')")
    browser.press("Enter", 13, "\r")
    browser.until("a session is listed", "document.querySelector('#sessions tbody tr') !== null")
    browser.tab_to("document.querySelector('#sessions thead button')")
    browser.press("Enter", 13, "\r")
    browser.until("the sessions are sorted", "document.querySelector('#sessions th').ariaSort === 'ascending'")

    for scheme in ["light", "dark"]:
        for width, height in [(360, 800), (1600, 900)]:
            browser.show(width, height, scheme, f"{width}-{scheme}")
            readable(browser, scheme)
            named(browser)
    assert browser.complaints == [], browser.complaints
    size = browser.read("performance.getEntriesByType('resource').map((it) => it.name)")
    assert all(name.startswith(URL) for name in size), f"the page loads from elsewhere: {size}"

    print("followed", flush=True)
    sys.stdin.readline()
    browser.until("the page reports the loss", "document.getElementById('status').dataset.state === 'lost'")
    browser.show(360, 800, "light", "360-lost")


browser = Browser()
try:
    check(browser)
finally:
    browser.end()
