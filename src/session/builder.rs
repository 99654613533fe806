//! How a session is set up.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Response};
use tokio::sync::Notify;

use crate::endpoint::{TokenEndpoint, header};
use crate::error::Error;
use crate::event::{self, LogoutReason};
use crate::lock::{Place, ProcessLock};
use crate::origin::Origin;
use crate::refresh::{LOCK_WAIT, SingleFlight, Storm};
use crate::session::core::{OnLogout, TokenClient, Unauthorized};
use crate::session::logout::Farewells;
use crate::session::prompt::{self, LOGIN_WAIT, LoginHook, Prompt};
use crate::session::state::State;
use crate::session::thread::SessionThread;
use crate::session::{Core, Counters, Handle, Session};
use crate::store::{Kept, Notes, Pin, Shared, StoreThread, TokenStore, durable};
use crate::token::TokenResponse;

/// Sets up a [`Session`], from [`Session::builder`].
#[must_use = "a builder does nothing until it is built"]
pub struct SessionBuilder {
    service: String,
    endpoint: Box<dyn TokenEndpoint>,
    origins: Vec<String>,
    account: String,
    store: Option<Arc<dyn TokenStore>>,
    state_dir: Option<PathBuf>,
    headers: Vec<Result<(HeaderName, HeaderValue), String>>,
    on_logout: Option<OnLogout>,
    login: Option<LoginHook>,
    login_wait: Duration,
    token_client: Option<TokenClient>,
    unauthorized: Option<Unauthorized>,
    lock_wait: Duration,
    store_wait: Duration,
    min_refresh_interval: Duration,
}

impl SessionBuilder {
    pub(crate) fn new(service: String, endpoint: Box<dyn TokenEndpoint>) -> Self {
        Self {
            service,
            endpoint,
            origins: Vec::new(),
            account: "default".to_owned(),
            store: None,
            state_dir: None,
            headers: Vec::new(),
            on_logout: None,
            login: None,
            login_wait: LOGIN_WAIT,
            token_client: None,
            unauthorized: None,
            lock_wait: LOCK_WAIT,
            store_wait: STORE_WAIT,
            min_refresh_interval: MIN_REFRESH_INTERVAL,
        }
    }

    /// Adds an origin that may see the token: scheme, host and port, as in
    /// `https://api.example.com`. Plain http is for loopback only. At least one is required.
    ///
    /// A request to any other origin goes as it is, without the token, and nothing says so. A
    /// redirect to another origin, a listed one too, leaves the token behind; a second one, within
    /// that origin, would take it there again unless the client is built with
    /// [`redirect_policy`](crate::redirect_policy).
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Which of the user's accounts this session is. Default: `default`.
    ///
    /// It names the keychain's entry. With a [store](Self::store) that is chosen it is only a
    /// label: two accounts need two files for their [`FileStore`](crate::FileStore)s, and two
    /// sessions on one file are the same login.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = account.into();
        self
    }

    /// Where the tokens are kept. Default: the operating system's keychain, in the entry of the
    /// account under the service's name; without the feature `keychain` there is none, and
    /// [`build`](Self::build) says so.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The directory where the programs that share a keychain's entry take turns, and note what the
    /// others have to know; new tokens among it, sealed with a key that is in the entry alone. All
    /// programs that share the session must name the same one; it belongs to the user, who alone
    /// can write to it. Default: `reqwest-reauth` in `~/.local/state` (macOS:
    /// `~/Library/Application Support`, Windows: local application data), where `~` is the home
    /// directory of the password database. A relative path is meant as of now; programs that start
    /// elsewhere would not meet there.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(durable::absolute(directory.into()));
        self
    }

    /// Adds a header to every request that gets the token, unless the request has it already:
    /// for servers that tie tokens to a device or a `User-Agent`. Give the endpoint the same one.
    /// Default: none.
    ///
    /// Unlike the token, reqwest takes it along on every redirect to another origin, whatever
    /// [`redirect_policy`](crate::redirect_policy) says: for a value that must not get there, build
    /// the client with a policy that stays, such as [`reqwest::redirect::Policy::none`].
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.headers.push(header(name.as_ref(), value.as_ref()));
        self
    }

    /// Is called once when the session ends, with the reason, on a thread of its own: it may
    /// block, and may use the session. The program waits for it at its end. Default: nothing.
    ///
    /// The reason is [`LoggedOutElsewhere`](LogoutReason::LoggedOutElsewhere) also where another
    /// program has logged in anew, whose tokens are in use by then: before a person is told to log
    /// in, ask [`is_logged_in`](Session::is_logged_in).
    ///
    /// It lives as long as the session: one that holds the session itself keeps it alive for
    /// ever, so give it a channel, or a place that is emptied at the end.
    pub fn on_logout(mut self, hook: impl Fn(LogoutReason) + Send + Sync + 'static) -> Self {
        self.on_logout = Some(Arc::new(hook));
        self
    }

    /// Asks a person to log in, when a request needs it: nobody is logged in, the server has ended
    /// the session or keeps refusing to refresh for no known reason, or there is no refresh token to
    /// go on with. `hook` gets the tokens of a login, as for [`Session::log_in`]. Meanwhile requests
    /// wait, and one prompt is made however many they are. Default: nothing; they fail as
    /// [logged out](Error::is_logged_out).
    ///
    /// Those that were made while nobody had been logged in then go on. Those that were made in a
    /// session go on if the login is of the same account, by its
    /// [subject](TokenResponse::subject); else, and where that is not known, they fail as logged out.
    /// So does every one if `hook` fails: its error is the [source](std::error::Error::source) of
    /// theirs. It is not called again until a login was made in another way, or the program
    /// is started anew; only after a [transient](Error::is_transient) error the next request calls
    /// it again. A time-out counts as well as a no, and a `BrowserLogin` waits for 5 minutes unless
    /// it is told otherwise: don't set this in a program where nobody sits at the machine. After a
    /// [`log_out`](Session::log_out), here or in another program, nobody is asked. Where a refresh
    /// succeeds after all, requests go on with what it brought, and a login that `hook` brings later
    /// counts as any other.
    ///
    /// It is called on a thread and a runtime of its own, and may block. A login that comes from
    /// elsewhere meanwhile, a logout, and the end of the session drop its future, and tokens that
    /// it brings all the same are revoked; the end of the program does not wait for it. Requests
    /// that it makes through the session itself fail as logged out. It lives as long as the
    /// session: one that holds the session keeps it alive for ever.
    ///
    /// ```
    /// # #[cfg(feature = "login")] {
    /// use reqwest_reauth::{BrowserLogin, OAuth2Endpoint, Session};
    ///
    /// let endpoint = OAuth2Endpoint::at_issuer("https://id.example.com", "client-id");
    /// let session = Session::builder("my-cli", endpoint.clone())
    ///     .origin("https://api.example.com")
    ///     .login(move || {
    ///         // With `openid`, the server says who has logged in.
    ///         let login = BrowserLogin::new(&endpoint).scope("openid offline_access");
    ///         login.run(|url| eprintln!("log in again at {url}"))
    ///     });
    /// # }
    /// ```
    pub fn login<F, E>(mut self, hook: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<TokenResponse, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.login = Some(prompt::hook(hook));
        self
    }

    /// How long a person who is [asked](Self::login) to log in may take, and requests wait, unless
    /// their own time-out is shorter. Default: 10 minutes.
    pub fn login_wait(mut self, limit: Duration) -> Self {
        self.login_wait = limit;
        self
    }

    /// Sets up the client that token requests are sent with, for instance with a company's root
    /// certificate or proxy. Default: reqwest's own settings, the system's proxy included.
    ///
    /// Redirects, hidden retries and kept connections are off whatever is set here, and
    /// connecting takes 5 seconds at most. Leave out what would harm: a total time-out (an answer
    /// that is given up may cost the session; the exchange has a limit of its own), a default
    /// `Authorization` header, and plain-text logging of what is sent. A token endpoint at plain
    /// http, which is on this machine, is asked without any of it.
    ///
    /// ```no_run
    /// # fn set(builder: reqwest_reauth::SessionBuilder, certificate: reqwest::Certificate) {
    /// builder.token_client(move |client| client.tls_certs_merge([certificate.clone()]));
    /// # }
    /// ```
    pub fn token_client(
        mut self,
        configure: impl Fn(ClientBuilder) -> ClientBuilder + Send + Sync + 'static,
    ) -> Self {
        self.token_client = Some(Box::new(configure));
        self
    }

    /// Takes what `is` says for a 401, for an API that tells in its own way that the token has
    /// expired: with a 403 or 419, or in a header. It sees status and headers of each response
    /// from the session's origins that is no 401; a challenge that says otherwise
    /// (`insufficient_scope`, RFC 6750 §3.1) still counts. What is taken for refused is sent again:
    /// a request that a 2xx answered has been carried out, and is then carried out twice. Default:
    /// a 401 alone.
    ///
    /// ```
    /// # fn set(builder: reqwest_reauth::SessionBuilder) {
    /// builder.unauthorized_if(|response| response.status().as_u16() == 419);
    /// # }
    /// ```
    pub fn unauthorized_if(
        mut self,
        is: impl Fn(&Response) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.unauthorized = Some(Box::new(is));
        self
    }

    /// How long a refresh or a login waits for its turn, while another program that shares the
    /// session has it. Then it fails as [transient](Error::is_transient); it never goes on
    /// without. Default: 65 seconds, one refresh of somebody else's at its slowest and a half.
    pub fn lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }

    /// How long one call of the [store](Self::store) may take. Then what needed it fails as
    /// [transient](Error::is_transient), unless the store [says](TokenStore::asks_a_person) that
    /// a person is unlocking it. Default: 3 seconds. A store that is slow by its nature, such as
    /// one in the network, wants more, and then [`lock_wait`](Self::lock_wait) more as well: a
    /// refresh makes several calls while others wait for their turn. The end of a program then
    /// waits longer, too, for a refresh that was sent.
    pub fn store_wait(mut self, limit: Duration) -> Self {
        self.store_wait = limit;
        self
    }

    /// How soon after a refresh a 401 may lead to another one, where nothing shows that this would
    /// help: the origin never accepted the new token, or the path has refused a new one before.
    /// Default: 10 seconds.
    pub fn min_refresh_interval(mut self, interval: Duration) -> Self {
        self.min_refresh_interval = interval;
        self
    }

    /// The session. Does no I/O: the store is read when first needed.
    ///
    /// # Errors
    /// A [configuration error](Error::is_configuration) that says what is wrong: no origin or one
    /// that is not secure, no store to be had, or settings that the endpoint refuses.
    pub fn build(self) -> Result<Session, Error> {
        if self.service.is_empty() || self.account.is_empty() {
            return Err(Error::configuration(
                "the service's and the account's name can't be empty",
            ));
        }
        self.endpoint.check().map_err(Error::configuration)?;
        if self.origins.is_empty() {
            return Err(Error::configuration(
                "no origin may see the token: name the API with .origin(\"https://…\")",
            ));
        }
        let origins = (self.origins.iter())
            .map(|origin| Origin::parse(origin))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::configuration)?;
        let headers = (self.headers.into_iter())
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::configuration)?;
        let store = match self.store {
            Some(store) => store,
            None => default_store(&self.service, &self.account)?,
        };
        let shared = store.shared();
        // A record in a file is as durable as a journal beside it.
        let journaled = matches!(shared, Shared::Named(_));
        let place = Place::of(shared, self.state_dir);
        let notes = Notes::new(place.clone());
        let lock = ProcessLock::new(place, self.lock_wait, store.describe());
        let core = Core {
            service: self.service,
            account: self.account,
            storm: Storm::new(origins.len(), self.min_refresh_interval),
            origins,
            headers,
            on_logout: self.on_logout,
            token_client: self.token_client,
            unauthorized: self.unauthorized,
            pin: Pin(self.endpoint.id()),
            endpoint: self.endpoint,
            store: StoreThread::new(Kept::new(store, notes, journaled), self.store_wait),
            state: State::new(),
            thread: SessionThread::new(self.store_wait),
            gate: Arc::default(),
            lock,
            refreshing: SingleFlight::new(),
            reading: SingleFlight::new(),
            prompt: self.login.map(|hook| Prompt::new(hook, self.login_wait)),
            events: event::channel(),
            counters: Counters::default(),
            logouts: AtomicU64::new(0),
            unborn: Mutex::default(),
            failed: Mutex::default(),
            farewells: Mutex::new(Farewells::default()),
            logged_out: Notify::new(),
            trouble: Mutex::new(None),
            last_look: Mutex::new(None),
        };
        Ok(Session(Arc::new(Handle { core: Arc::new(core) })))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("service", &self.service)
            .field("account", &self.account)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "keychain")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn default_store(service: &str, account: &str) -> Result<Arc<dyn TokenStore>, Error> {
    Ok(Arc::new(crate::store::KeychainStore::new(service, account)))
}

#[cfg(not(feature = "keychain"))]
fn default_store(_service: &str, _account: &str) -> Result<Arc<dyn TokenStore>, Error> {
    Err(Error::configuration(
        "no store for the tokens: choose one with .store(…), for instance a FileStore, or turn \
         the feature `keychain` on",
    ))
}

/// A keychain answers in milliseconds; one that is waited for longer than this is hung, and a
/// person at a terminal would rather know.
const STORE_WAIT: Duration = Duration::from_secs(3);

/// Servers that check tokens against a cache need seconds to learn of a new one; a loop of
/// refreshes must not be faster than that.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(10);
