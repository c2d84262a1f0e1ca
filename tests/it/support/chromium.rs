//! Chromium, driven over the DevTools protocol by a pipe: no port to find, no driver to install. Blocking, for a thread of its
//! own.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Folder;

/// The longest time that a page may take for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser, and the events that its pages have sent.
pub(crate) struct Chromium {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    asked: u64,
    events: Vec<Value>,
    _profile: Folder,
}

/// A tab.
pub(crate) struct Tab<'a> {
    browser: &'a mut Chromium,
    target: String,
    session: String,
}

/// The page at a URL once its scripts have run, as HTML.
pub(crate) fn rendered(url: &str) -> String {
    let profile = Folder::new();
    let mut command = Command::new("chromium");
    let output = with_profile(&mut command, &profile)
        .args(["--timeout=20000", "--virtual-time-budget=20000", "--dump-dom", url])
        .output()
        .expect("chromium is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Adds the arguments that keep a browser to itself: all its files are in the profile's folder.
fn with_profile<'a>(command: &'a mut Command, profile: &Folder) -> &'a mut Command {
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .env("TMPDIR", profile.path())
}

impl Chromium {
    pub(crate) fn start() -> Self {
        let profile = Folder::new();
        // Chromium reads commands from descriptor 3 and writes to 4; a shell can put pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "chromium"]);
        let mut child = with_profile(&mut command, &profile)
            .args(["--remote-debugging-pipe", "--hide-scrollbars"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("piped");
        let mut out = child.stdout.take().expect("piped");
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let (mut read, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(length @ 1..) = out.read(&mut chunk) {
                read.extend_from_slice(&chunk[..length]);
                while let Some(end) = read.iter().position(|byte| *byte == 0) {
                    let message: Vec<u8> = read.drain(..=end).collect();
                    let message = serde_json::from_slice(&message[..end]).expect("the protocol is JSON");
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        Self { child, to, from, asked: 0, events: Vec::new(), _profile: profile }
    }

    fn call(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let mut command = json!({ "id": self.asked, "method": method, "params": parameters });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{command}\0").as_bytes()).expect("chromium runs (is it installed?)");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] != json!(self.asked) {
                self.events.push(message);
            } else if let Some(result) = message.get("result") {
                return result.clone();
            } else {
                panic!("{method}: {message}");
            }
        }
    }

    /// A tab as wide as a device, in a theme.
    pub(crate) fn tab(&mut self, width: u32, theme: &str) -> Tab<'_> {
        let target = self.call(None, "Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let session = self.call(None, "Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let tab = Tab { target: text(&target), session: text(&session["sessionId"]), browser: self };
        tab.browser.events.clear();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.browser.call(Some(&tab.session), &format!("{domain}.enable"), &json!({}));
        }
        let phone = width < 600;
        let device =
            json!({ "width": width, "height": if phone { 740 } else { 900 }, "deviceScaleFactor": 1, "mobile": phone });
        tab.browser.call(Some(&tab.session), "Emulation.setDeviceMetricsOverride", &device);
        let theme = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        tab.browser.call(Some(&tab.session), "Emulation.setEmulatedMedia", &theme);
        tab
    }
}

/// Runs a blocking script while the world goes on.
pub(crate) async fn drive(script: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(script).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tab<'_> {
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// The value of an expression, within the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let found = self.call("Runtime.evaluate", &asked);
        assert!(found.get("exceptionDetails").is_none(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true within the page.
    pub(crate) fn until(&mut self, condition: &str) {
        let deadline = Instant::now() + PATIENCE;
        let look = format!("new Promise((done) => setTimeout(() => done(Boolean({condition})), 50))");
        while self.value(&look) != json!(true) {
            let text = "document.body.innerText";
            assert!(Instant::now() < deadline, "{condition}: {}", self.value(text));
        }
    }

    /// Clicks in the middle of an element.
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const element = document.querySelector({selector:?}); element.scrollIntoView({{ block: 'center' }}); const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.value(&middle);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Clicks into a field and types, letter by letter.
    pub(crate) fn write(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.value(&format!("document.querySelector({selector:?}).select?.()"));
        text.chars().for_each(|letter| self.letter(letter));
    }

    /// Types a letter where the focus is.
    pub(crate) fn letter(&mut self, letter: char) {
        self.call("Input.dispatchKeyEvent", &json!({ "type": "char", "text": letter.to_string() }));
    }

    /// Presses a named key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": if key == "Enter" && kind == "keyDown" { "\r" } else { "" } });
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Saves a picture of the whole page in the build folder.
    pub(crate) fn screenshot(&mut self, name: &str) {
        let shot = self.call("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let picture = BASE64_STANDARD.decode(shot["data"].as_str().expect("a text")).expect("base64");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        std::fs::create_dir_all(&folder).expect("the build folder is writable");
        let path = folder.join(name);
        std::fs::write(&path, picture).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The parameters of all events of this tab with a method.
    fn events(&self, method: &str) -> Vec<&Value> {
        let own = |event: &&Value| event["sessionId"] == *self.session && event["method"] == *method;
        self.browser.events.iter().filter(own).map(|event| &event["params"]).collect()
    }

    /// The page's exceptions, console errors and warnings, and the browser's log entries about it.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let exceptions = self.events("Runtime.exceptionThrown");
        let console = self.events("Runtime.consoleAPICalled");
        let console = console.into_iter().filter(|call| call["type"] == "error" || call["type"] == "warning");
        let log = self.events("Log.entryAdded");
        let log =
            log.into_iter().filter(|entry| entry["entry"]["level"] == "error" || entry["entry"]["level"] == "warning");
        exceptions.into_iter().chain(console).chain(log).collect()
    }

    /// Every URL that the page has requested from a server; `data:` URLs are left out.
    pub(crate) fn requests(&self) -> Vec<String> {
        let url = |request: &Value| request["request"]["url"].as_str().expect("a text").to_owned();
        self.events("Network.requestWillBeSent").into_iter().map(url).filter(|url| !url.starts_with("data:")).collect()
    }
}

impl Drop for Tab<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.browser.call(None, "Target.closeTarget", &json!({ "targetId": self.target }));
        }
    }
}
