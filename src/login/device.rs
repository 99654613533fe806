//! A login on another device (RFC 8628).

use std::fmt;
use std::time::{Duration, Instant};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use reqwest::{Client, ClientBuilder, Url};
use serde_json::{Map, Value};

use super::{DENIED, Request, failed, has_no, in_time, is_for_now, usable};
use crate::endpoint::{OAuth2Endpoint, RefreshError, ServerMetadata, answer};
use crate::error::Error;
use crate::token::{TokenResponse, seconds};

/// A login on another device, such as a telephone: for machines without a browser.
///
/// ```no_run
/// # async fn log_in(session: reqwest_reauth::Session) -> Result<(), reqwest_reauth::Error> {
/// use reqwest_reauth::{DeviceLogin, OAuth2Endpoint};
///
/// let endpoint = OAuth2Endpoint::at_issuer("https://id.example.com", "my-cli");
/// let login = DeviceLogin::new(&endpoint).scope("offline_access");
/// session.log_in(login.run(|progress| eprintln!("{progress}")).await?).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a login begins when it is run"]
pub struct DeviceLogin {
    request: Request,
}

impl DeviceLogin {
    /// A login of the endpoint's client at its server, which is found by the issuer or given with
    /// [`device_authorization_url`](OAuth2Endpoint::device_authorization_url).
    pub fn new(endpoint: &OAuth2Endpoint) -> Self {
        Self { request: Request::new(endpoint) }
    }

    /// Adds scopes to ask for, with spaces between them (RFC 6749 §3.3). Default: the server's.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.request.add_scope(scope.as_ref());
        self
    }

    /// Adds a parameter to the request that begins the login, such as `audience`. Default: none.
    ///
    /// Each `resource` is in the token request too (RFC 8707 §2.2), and in a refresh where
    /// [`OAuth2Endpoint::param`] says so.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.params.push((name.into(), value.into()));
        self
    }

    /// Changes the client that asks the server, as
    /// [`SessionBuilder::token_client`](crate::SessionBuilder::token_client) does for the session.
    /// Default: reqwest's own.
    pub fn token_client(mut self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        self.request.client = change(self.request.client);
        self
    }

    /// Gets a code for the person, and waits until it was entered elsewhere or has ended.
    ///
    /// `tell` is called with the [prompt](DeviceProgress::Prompt), which has to be shown, and then
    /// at each look at the server. Where that can't be reached, it is asked less often, and not
    /// before its `Retry-After` is over unless the code ends by then; the login goes on. Needs a
    /// tokio runtime with time and I/O.
    ///
    /// # Errors
    /// The person or the server said no ([`Error::is_denied`]), the code has ended
    /// ([`Error::is_timeout`]), the login could not begin for now ([`Error::is_transient`]), a
    /// setting is wrong ([`Error::is_configuration`]), or none of these: an answer is of no use.
    pub async fn run(
        mut self,
        mut tell: impl FnMut(DeviceProgress<'_>),
    ) -> Result<TokenResponse, Error> {
        let (http, server) = self.request.begin().await?;
        let (prompt, code, mut interval) = self.ask(&http, &server).await?;
        tell(DeviceProgress::Prompt(&prompt));
        let end = Instant::now() + prompt.expires_in;
        let mut pause = interval;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(left)).await;
            if pause >= left {
                return Err(Error::login_timed_out());
            }
            match self.look(&http, &server, &code).await? {
                Look::Tokens(tokens) => return Ok(tokens),
                Look::Pending => pause = interval,
                Look::SlowDown => {
                    // For good (RFC 8628 §3.5).
                    interval += SLOWER;
                    pause = interval;
                }
                Look::Unreachable(error) => {
                    // A last look falls into the code's life, if the interval allows one by then.
                    let left = end.saturating_duration_since(Instant::now());
                    let last = left.saturating_sub(LAST_LOOK);
                    let asked = error.retry_after().unwrap_or_default();
                    pause = (pause * 2).min(PAUSE_MAX).max(asked).min(last).max(interval);
                    tell(DeviceProgress::Unreachable { error: &error, retry_in: pause });
                    continue;
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            tell(DeviceProgress::Waiting { left });
        }
    }

    /// RFC 8628 §3.1 and §3.2.
    async fn ask(
        &self,
        http: &Client,
        server: &ServerMetadata,
    ) -> Result<(DevicePrompt, String, Duration), Error> {
        let url = server.device_authorization_endpoint();
        let missing = || has_no(server, "device authorization", "device_authorization_url");
        let url = url.ok_or_else(missing)?;
        let scope = self.request.scopes.join(" ");
        let mut fields = Vec::new();
        if !scope.is_empty() {
            fields.push(("scope", scope.as_str()));
        }
        let params = self.request.params.iter();
        fields.extend(params.map(|(name, value)| (name.as_str(), value.as_str())));
        // Beside HTTP Basic too: some servers look for it here alone.
        if !fields.iter().any(|(name, _)| *name == "client_id") {
            fields.push(("client_id", self.request.endpoint.client_id()));
        }
        let what = "the device authorization endpoint";
        let answered = in_time(self.request.endpoint.post(http, what, url, &fields)).await;
        let (status, headers, body) = answered.map_err(failed)?;
        if !status.is_success() {
            return Err(failed(answer::refusal(what, status, &headers, &body, &[])));
        }
        read_device_authorization(&body)
    }

    /// RFC 8628 §3.4 and §3.5.
    async fn look(
        &self,
        http: &Client,
        server: &ServerMetadata,
        code: &str,
    ) -> Result<Look, Error> {
        let mut fields = vec![("grant_type", GRANT), ("device_code", code)];
        fields.extend(self.request.resources());
        let endpoint = &self.request.endpoint;
        let answered = async { Ok(endpoint.token_answer(http, server, &fields).await) };
        let (error, code) = match in_time(answered).await {
            Ok(Ok(tokens)) => return usable(tokens).map(Look::Tokens),
            Ok(Err(refused)) => refused,
            Err(error) => (error, None),
        };
        match (code.as_deref(), error) {
            (Some("authorization_pending"), _) => Ok(Look::Pending),
            (Some("slow_down"), _) => Ok(Look::SlowDown),
            (Some(error), _) if DENIED.contains(&error) => Err(Error::denied()),
            (Some("expired_token"), _) => Err(Error::login_timed_out()),
            (_, error) if is_for_now(&error) => Ok(Look::Unreachable(failed(error))),
            (_, error) => Err(failed(error)),
        }
    }
}

impl fmt::Debug for DeviceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters may hold secrets.
        f.debug_struct("DeviceLogin")
            .field("endpoint", &self.request.endpoint)
            .finish_non_exhaustive()
    }
}

/// What a look at the server came to.
enum Look {
    Tokens(TokenResponse),
    Pending,
    SlowDown,
    Unreachable(Error),
}

/// How a [`DeviceLogin`] goes on. `Display` is a sentence for the person.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceProgress<'a> {
    /// What the person has to do, to be shown in any case: first, and once.
    Prompt(&'a DevicePrompt),
    /// The person has not entered the code yet.
    Waiting {
        /// How long the code can still be entered.
        left: Duration,
    },
    /// The server could not be asked.
    Unreachable {
        /// Why.
        error: &'a Error,
        /// When it is asked again.
        retry_in: Duration,
    },
}

impl fmt::Display for DeviceProgress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompt(prompt) => prompt.fmt(f),
            Self::Waiting { left } => write!(f, "waiting, {} seconds left", left.as_secs()),
            Self::Unreachable { error, retry_in } => {
                write!(f, "{error}; trying again in {} seconds", retry_in.as_secs())
            }
        }
    }
}

/// What the person has to do on the other device. `Display` says it.
#[derive(Clone)]
pub struct DevicePrompt {
    user_code: String,
    verification_uri: Url,
    verification_uri_complete: Option<Url>,
    expires_in: Duration,
}

impl DevicePrompt {
    fn of(asked: &Map<String, Value>) -> Option<Self> {
        let text = |name| asked.get(name).and_then(Value::as_str);
        let page = |name| {
            let url = Url::parse(text(name)?).ok()?;
            matches!(url.scheme(), "https" | "http").then_some(url)
        };
        // It goes to a terminal.
        let is_text = |code: &&str| !code.is_empty() && !code.chars().any(char::is_control);
        Some(Self {
            user_code: text("user_code").filter(is_text)?.to_owned(),
            // The name before RFC 8628; some give both.
            verification_uri: page("verification_uri").or_else(|| page("verification_url"))?,
            verification_uri_complete: page("verification_uri_complete"),
            expires_in: seconds(asked.get("expires_in")?)?.min(EXPIRES_MAX),
        })
    }

    /// The code to enter.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where it is entered.
    pub fn verification_uri(&self) -> &str {
        self.verification_uri.as_str()
    }

    /// The same with the code in it, for a link or a [QR code](Self::qr_code). The code has to be
    /// shown as well, to be compared (RFC 8628 §3.3.1).
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_ref().map(Url::as_str)
    }

    /// How long the code can be entered, from when it was received.
    pub fn expires_in(&self) -> Duration {
        self.expires_in
    }

    /// A QR code of the page, with the code in it where the server has such a page: for a
    /// terminal with a dark background, in half blocks. `None` for a URL that is too long for one.
    pub fn qr_code(&self) -> Option<String> {
        let url = self.verification_uri_complete.as_ref().unwrap_or(&self.verification_uri);
        let code = QrCode::new(url.as_str()).ok()?;
        let mut picture = code.render::<Dense1x2>();
        Some(picture.dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build())
    }
}

impl fmt::Display for DevicePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {} and enter the code {}", self.verification_uri, self.user_code)
    }
}

impl fmt::Debug for DevicePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who has the code can be logged in by whoever asked for it.
        f.debug_struct("DevicePrompt").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// The answer to the request that begins a login: what the person has to do, the device code, and
/// the pause between two looks (RFC 8628 §3.2).
pub(crate) fn read_device_authorization(
    body: &[u8],
) -> Result<(DevicePrompt, String, Duration), Error> {
    // As forgiving as a token response is read: of what is said twice, the last counts.
    let asked: Map<String, Value> = serde_json::from_slice(body).map_err(|_| unusable())?;
    let code = asked.get("device_code").and_then(Value::as_str).filter(|code| !code.is_empty());
    let code = code.ok_or_else(unusable)?.to_owned();
    let interval = asked.get("interval").and_then(seconds).unwrap_or(INTERVAL);
    let prompt = DevicePrompt::of(&asked).ok_or_else(unusable)?;
    Ok((prompt, code, interval.max(INTERVAL_MIN)))
}

fn unusable() -> Error {
    failed(RefreshError::unexpected("the answer to the device authorization request is unusable"))
}

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// RFC 8628 §3.2.
const INTERVAL: Duration = Duration::from_secs(5);

/// No person is faster.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// RFC 8628 §3.5.
const SLOWER: Duration = Duration::from_secs(5);

/// So long before its end a code is asked for once more: what an answer takes.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A person waits for a network that comes and goes.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Nobody waits longer, whatever the server says.
const EXPIRES_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_answer_that_begins_a_login_is_read_however_it_is_written() {
        let read = |name: &str, said: Value| {
            let mut body = json!({
                "device_code": "d",
                "user_code": "WDJB-MJHT",
                "verification_uri": "https://id.example.com/device",
                "expires_in": 600,
                "interval": 7,
            });
            body[name] = said;
            let (prompt, _, interval) = read_device_authorization(body.to_string().as_bytes())?;
            let expires_in = prompt.expires_in().as_secs();
            Ok::<_, Error>((prompt.verification_uri, expires_in, interval.as_secs()))
        };
        let page = Url::parse("https://id.example.com/device").unwrap();
        for (name, said, expires_in, interval) in [
            ("expires_in", json!("300"), 300, 7),
            ("expires_in", json!(300.5), 300, 7),
            ("expires_in", json!(u64::MAX), 24 * 3600, 7),
            ("interval", json!("9"), 600, 9),
            ("interval", json!(0), 600, 1),
            ("interval", json!(null), 600, 5),
            ("interval", json!("soon"), 600, 5),
            ("verification_url", json!("https://id.example.com/old"), 600, 7),
        ] {
            let expected = (page.clone(), expires_in, interval);
            assert_eq!(read(name, said.clone()).unwrap(), expected, "{name}: {said}");
        }
        for (name, said) in [
            ("device_code", json!("")),
            ("device_code", json!(7)),
            ("user_code", json!(null)),
            ("verification_uri", json!("javascript:alert(1)")),
            ("expires_in", json!(-1)),
            ("expires_in", json!("NaN")),
            ("expires_in", json!(null)),
        ] {
            assert!(read(name, said.clone()).is_err(), "{name}: {said}");
        }
        let old = br#"{"device_code":"d","user_code":"u","verification_url":"https://a.b/","expires_in":1}"#;
        let (prompt, ..) = read_device_authorization(old).unwrap();
        assert_eq!(prompt.verification_uri(), "https://a.b/");
    }
}
