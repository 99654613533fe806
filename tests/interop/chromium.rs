//! A headless Chromium, and a person in front of it (W3C WebDriver, by chromedriver).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

pub struct Chromium {
    driver: Child,
    /// Kept open: what the driver prints must not fail.
    _said: BufReader<ChildStdout>,
    http: Client,
    /// Of the browser, at the driver.
    url: String,
}

impl Chromium {
    pub async fn open() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            // Its browser is of the same group, and goes with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver: {e}: install chromium and chromium-driver"));
        let mut said = BufReader::new(driver.stdout.take().unwrap());
        let port = port(&mut said);
        let mut browser = Self {
            driver,
            _said: said,
            http: Client::new(),
            url: format!("http://127.0.0.1:{port}/session"),
        };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": ARGUMENTS },
            "timeouts": { "implicit": PATIENCE.as_millis() as u64 },
        } } });
        let session = browser.tell("", wanted).await;
        browser.url = format!("{}/{}", browser.url, session["sessionId"].as_str().unwrap());
        browser
    }

    pub async fn go(&self, url: &str) {
        self.tell("/url", json!({ "url": url })).await;
    }

    /// Writes `text` in place of what is in the field.
    pub async fn write(&self, field: &str, text: &str) {
        let field = self.find(field).await;
        self.tell(&format!("{field}/clear"), json!({})).await;
        self.tell(&format!("{field}/value"), json!({ "text": text })).await;
    }

    pub async fn click(&self, what: &str) {
        let what = self.find(what).await;
        self.tell(&format!("{what}/click"), json!({})).await;
    }

    /// Waits for an element of the page, by its CSS selector.
    pub async fn sees(&self, what: &str) {
        self.find(what).await;
    }

    /// Waits for the page with this heading; the text of the whole page.
    pub async fn reads(&self, heading: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let find = |selector: &str| {
            let script = format!("return document.querySelector('{selector}')?.innerText ?? ''");
            json!({ "script": script, "args": [] })
        };
        loop {
            let found = self.tell("/execute/sync", find("h1")).await;
            if found == heading {
                let text = self.tell("/execute/sync", find("body")).await;
                return text.as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < end, "no page {heading:?}, but {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes the window, as a person does.
    pub async fn close(self) {
        self.http.delete(&self.url).send().await.unwrap().error_for_status().unwrap();
    }

    async fn find(&self, selector: &str) -> String {
        let by = json!({ "using": "css selector", "value": selector });
        match self.try_to_tell("/element", by).await {
            // The key is the same for all (WebDriver §12.1).
            Ok(element) => match element.as_object().and_then(|keys| keys.values().next()) {
                Some(Value::String(id)) => format!("/element/{id}"),
                _ => panic!("no element: {element}"),
            },
            Err(why) => {
                let script = "return location.href + ' ' + document.body.innerText";
                let script = json!({ "script": script, "args": [] });
                let page = self.tell("/execute/sync", script).await;
                panic!("no {selector}: {}: {page}", why["message"]);
            }
        }
    }

    async fn tell(&self, command: &str, with: Value) -> Value {
        let told = self.try_to_tell(command, with).await;
        told.unwrap_or_else(|why| panic!("{command}: {}", why["message"]))
    }

    async fn try_to_tell(&self, command: &str, with: Value) -> Result<Value, Value> {
        let url = format!("{}{command}", self.url);
        let answer = self.http.post(&url).json(&with).send().await.unwrap();
        let (status, mut said) = (answer.status(), answer.json::<Value>().await.unwrap());
        let value = said["value"].take();
        if status.is_success() { Ok(value) } else { Err(value) }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.driver.wait();
    }
}

fn port(said: &mut impl BufRead) -> u16 {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "chromedriver did not start");
        let port = line.trim_end().trim_end_matches('.').rsplit_once("successfully on port ");
        if let Some((_, port)) = port {
            return port.parse().unwrap();
        }
    }
}

/// A page that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing but this machine is reached: no fonts, no updates. As root there is no sandbox.
const ARGUMENTS: [&str; 7] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];
