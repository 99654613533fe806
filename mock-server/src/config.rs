//! The switches: what the server recommends, forbids and claims.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value;

use crate::server::MockServer;

/// Sets the switches of a server before it starts; see [`MockServer::builder`].
///
/// ```
/// use std::time::Duration;
/// use mock_server::{MockServer, Reuse};
///
/// let server = MockServer::builder()
///     .access_ttl(Duration::from_millis(200))
///     .grace(Duration::from_secs(2))
///     .reuse(Reuse::RevokeUser)
///     .start()?;
/// assert!(server.origin().starts_with("http://127.0.0.1:"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start` is called"]
pub struct Builder {
    config: Config,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { config: Config::default() }
    }

    /// How long the API accepts an access token; default 5 minutes. Sub-second values work.
    pub fn access_ttl(mut self, ttl: Duration) -> Self {
        self.config.access_ttl = ttl;
        self
    }

    /// How long a refresh token can be used, counted from its own issue; default 1 day.
    pub fn refresh_ttl(mut self, ttl: Duration) -> Self {
        self.config.refresh_ttl = ttl;
        self
    }

    /// What token responses say about the life of the access token; default [`ExpiresIn::Truthful`].
    pub fn expires_in(mut self, said: ExpiresIn) -> Self {
        self.config.expires_in = said;
        self
    }

    /// Whether token responses have a `refresh_expires_in`, in seconds; default `false`.
    pub fn refresh_expires_in(mut self, said: bool) -> Self {
        self.config.refresh_expires_in = said;
        self
    }

    /// Whether each refresh replaces the refresh token; default `true`.
    ///
    /// With `false` the refresh token of the login stays valid for its whole life, and responses
    /// to a refresh have no `refresh_token`.
    pub fn rotation(mut self, rotates: bool) -> Self {
        self.config.rotation = rotates;
        self
    }

    /// How long after its rotation a spent refresh token is forgiven; default zero.
    ///
    /// Within this time it gets the very pair of tokens that replaced it once more
    /// ([`Counters::grace_replays`](crate::Counters::grace_replays)), and is no reuse.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.config.grace = grace;
        self
    }

    /// What happens when a spent refresh token is presented; default [`Reuse::RevokeFamily`].
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.config.reuse = reuse;
        self
    }

    /// Answers more than `max` requests in `per` at `/token` and `/refresh-token`, counted
    /// together, with 429; default no limit.
    ///
    /// The answer has a `Retry-After` in whole seconds, after which there is room again.
    pub fn rate_limit(mut self, max: u32, per: Duration) -> Self {
        self.config.rate_limit = Some((max, per));
        self
    }

    /// Binds each session to the values these headers had at its login; default none.
    ///
    /// A refresh from another context gets `invalid_grant`, an API request `invalid_token`. Such a
    /// refused refresh does not spend the token. A header absent at login must stay absent.
    /// Sessions of [`MockServer::log_in`] are not bound, those of [`MockServer::log_in_from`] are.
    ///
    /// # Panics
    ///
    /// If a name is not a valid header name.
    pub fn bind_context<N: AsRef<str>>(mut self, headers: impl IntoIterator<Item = N>) -> Self {
        self.config.context = headers
            .into_iter()
            .map(|name| match name.as_ref().parse() {
                Ok(name) => name,
                Err(_) => panic!("not a header name: {:?}", name.as_ref()),
            })
            .collect();
        self
    }

    /// Accepts only this client at `/token` and `/revoke`; default any, or none.
    ///
    /// The client names itself with HTTP Basic or with `client_id` and `client_secret` in the
    /// form (RFC 6749 §2.3.1). Anything else is answered 401 `invalid_client`.
    pub fn client<'a>(mut self, id: impl Into<String>, secret: impl Into<Option<&'a str>>) -> Self {
        self.config.client =
            Some(Client { id: id.into(), secret: secret.into().map(str::to_owned) });
        self
    }

    /// Where the server says of itself what it is; default [`Metadata::Both`].
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.config.metadata = metadata;
        self
    }

    /// What the login page's answer says of its issuer (RFC 9207); default [`ResponseIss::Right`].
    pub fn response_iss(mut self, response_iss: ResponseIss) -> Self {
        self.config.response_iss = response_iss;
        self
    }

    /// How long a login on another device may take; default 10 minutes. Sub-second values work.
    pub fn device_ttl(mut self, ttl: Duration) -> Self {
        self.config.device_ttl = ttl;
        self
    }

    /// How long a client has to wait between two looks at such a login, in whole seconds; default
    /// one. With `None` the answer leaves it out, which means five (RFC 8628 §3.2).
    pub fn device_interval(mut self, interval: Option<Duration>) -> Self {
        self.config.device_interval = interval;
        self
    }

    /// Where to listen; default a free port on 127.0.0.1.
    pub fn addr(mut self, addr: SocketAddr) -> Self {
        self.config.addr = addr;
        self
    }

    /// Calls `log` with one line per answered request, on the thread of the server; default none.
    ///
    /// A line names families and generations, never a token.
    pub fn log(mut self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.config.log = Some(Log(Arc::new(log)));
        self
    }

    /// Starts the server; it accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or the thread of the server cannot be started.
    pub fn start(self) -> io::Result<MockServer> {
        MockServer::launch(self.config)
    }
}

/// What a token response says about the life of the access token.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ExpiresIn {
    /// The seconds that are left, a fraction rounded up.
    #[default]
    Truthful,
    /// Nothing: the member is left out, as RFC 6749 §5.1 allows.
    Absent,
    /// This value, true or not, a number or not.
    Value(Value),
}

/// Which of the two documents about itself a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metadata {
    /// That of RFC 8414 and that of OpenID Connect.
    #[default]
    Both,
    /// That of RFC 8414.
    OAuth,
    /// That of OpenID Connect Discovery.
    Oidc,
    /// None.
    Neither,
}

impl Metadata {
    pub(crate) fn has(self, oidc: bool) -> bool {
        self == Self::Both || self == if oidc { Self::Oidc } else { Self::OAuth }
    }
}

/// What the login page's answer says of its issuer (RFC 9207).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseIss {
    /// What the metadata says too.
    #[default]
    Right,
    /// Nothing, as the metadata says.
    Absent,
    /// Nothing, although the metadata says otherwise.
    Missing,
    /// This.
    Value(String),
}

/// What happens when a spent refresh token is presented outside the grace window.
///
/// The answer is `invalid_grant` in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reuse {
    /// Every token that goes back to the same login is revoked (RFC 9700 §4.14.2).
    #[default]
    RevokeFamily,
    /// Every token of the same user is revoked.
    RevokeUser,
    /// Nothing else happens.
    Ignore,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) access_ttl: Duration,
    pub(crate) refresh_ttl: Duration,
    pub(crate) expires_in: ExpiresIn,
    pub(crate) refresh_expires_in: bool,
    pub(crate) rotation: bool,
    pub(crate) grace: Duration,
    pub(crate) reuse: Reuse,
    pub(crate) rate_limit: Option<(u32, Duration)>,
    pub(crate) context: Vec<HeaderName>,
    pub(crate) client: Option<Client>,
    pub(crate) metadata: Metadata,
    pub(crate) response_iss: ResponseIss,
    pub(crate) device_ttl: Duration,
    pub(crate) device_interval: Option<Duration>,
    pub(crate) addr: SocketAddr,
    pub(crate) log: Option<Log>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(5 * 60),
            refresh_ttl: Duration::from_secs(24 * 60 * 60),
            expires_in: ExpiresIn::default(),
            refresh_expires_in: false,
            rotation: true,
            grace: Duration::ZERO,
            reuse: Reuse::default(),
            rate_limit: None,
            context: Vec::new(),
            client: None,
            metadata: Metadata::default(),
            response_iss: ResponseIss::default(),
            device_ttl: Duration::from_secs(10 * 60),
            device_interval: Some(Duration::from_secs(1)),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            log: None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub(crate) struct Log(pub(crate) Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
