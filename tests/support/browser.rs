//! A real browser without a window: chromedriver, told what to do over WebDriver, which is JSON over HTTP.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Set where the tests in a browser have to run: without one they fail there, and are passed over elsewhere.
const REQUIRED: &str = "MESSENGER_TEST_BROWSER_REQUIRED";
/// After this long without an answer a test has failed: nothing is ever waited for by it.
const HANG: Duration = Duration::from_secs(60);

/// One browser with one page.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Its profile, which goes with it.
    _profile: TempDir,
}

impl Browser {
    /// Starts one; where there is none, says so and gives nothing, or fails where it has to be there.
    pub fn start() -> Option<Self> {
        let found = (find(&["chromium", "chromium-browser", "google-chrome"]), find(&["chromedriver"]));
        if let (Some(browser), Some(driver)) = found {
            return Some(Self::start_with(&browser, &driver));
        }
        let why = "not looked at in a browser: chromium and chromedriver are not installed (Debian: chromium-driver)";
        assert!(std::env::var_os(REQUIRED).is_none(), "{why}, and {REQUIRED} is set");
        // Straight to the stream: what a passing test prints is not shown.
        let _ = writeln!(std::io::stderr(), "{why}");
        None
    }

    fn start_with(browser: &Path, driver: &Path) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(driver).arg("--port=0").stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(driver.stdout.take().unwrap());
        let port = std::iter::from_fn(|| {
            let mut line = String::new();
            (out.read_line(&mut line).unwrap() > 0).then_some(line)
        })
        .find_map(|line| line.trim().strip_suffix('.')?.rsplit_once("started successfully on port ")?.1.parse().ok())
        .expect("chromedriver says its port");
        // Nobody reads on, and it must not wait for that.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut started = Self { driver, address, session: String::new(), _profile: profile };
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--user-data-dir={}", started._profile.path().display()));
        let wanted = json!({
            "goog:chromeOptions": { "binary": browser, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let session = started.request("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        started.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        started
    }

    /// Opens a file and waits until it is loaded.
    pub fn open(&self, file: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", file.display()) }));
    }

    /// Runs a function's body in the page; what it returns, once it is there where that is a promise.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// A command of the browser's own protocol.
    pub fn command(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Types into the element of a selector, as a person does.
    pub fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("{element}/value"), &json!({ "text": text }));
    }

    /// Clicks on the element of a selector, as a person does.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("{element}/click"), &json!({}));
    }

    /// What the browser has complained of since it was last asked.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// What is seen, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.request("GET", &format!("{}/screenshot", self.session), &Value::Null);
        base64::engine::general_purpose::STANDARD.decode(shot.as_str().unwrap()).unwrap()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        format!("/element/{}", found.as_object().unwrap().values().next().unwrap().as_str().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", &format!("{}{path}", self.session), body)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = self.send(method, path, &body).unwrap();
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            assert!(answer.read_line(&mut line).unwrap() > 0, "{method} {path}: no answer");
            if line == "\r\n" {
                break;
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                bytes = length.trim().parse().unwrap();
            }
        }
        let mut text = vec![0; bytes];
        answer.read_exact(&mut text).unwrap();
        let mut answer: Value = serde_json::from_slice(&text).unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{method} {path}: {value:#}");
        value
    }

    fn send(&self, method: &str, path: &str, body: &str) -> std::io::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(HANG))?;
        let (host, length) = (self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
        Ok(BufReader::new(stream))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is the driver's child, and ends with its session.
        let _ = self.send("DELETE", &self.session, "").and_then(|mut answer| answer.read_line(&mut String::new()));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|file| file.is_file())
}
