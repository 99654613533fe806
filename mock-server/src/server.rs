//! The server: its thread, its socket, its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::{Builder, Config};
use crate::routes;
use crate::state::Shared;

/// A running server; dropping it stops it.
///
/// All methods act at once, may be called from any thread, and block no longer than a lock of a
/// few lines takes.
///
/// # Panics
///
/// Dropping it panics if a handler panicked, unless the thread is panicking already.
#[must_use = "the server stops when it is dropped"]
pub struct MockServer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Handle,
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MockServer {
    /// Starts a server with all defaults, on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If it cannot be started; [`Builder::start`] returns the error instead.
    pub fn start() -> Self {
        match Self::builder().start() {
            Ok(server) => server,
            Err(error) => panic!("the mock server cannot start: {error}"),
        }
    }

    /// The switches, all at their defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn launch(config: Config) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        // Bound here, so that a failure is the caller's, and a client can connect at once.
        let listener = {
            let _entered = runtime.enter();
            listen(config.addr)?
        };
        let addr = listener.local_addr()?;

        let shared = Arc::new(Shared::new(config, addr));
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        let serving = serve(listener, shared.clone(), stopped);
        let thread = thread::Builder::new()
            .name("mock-server".into())
            // Dropping the runtime at the end drops the connections, and thereby closes them.
            .spawn(move || runtime.block_on(serving))?;
        Ok(Self { shared, runtime: handle, addr, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Scheme, host and port, such as `http://127.0.0.1:54321`, without a slash at the end.
    pub fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The token endpoint (RFC 6749 §3.2).
    pub fn token_url(&self) -> String {
        self.origin() + "/token"
    }

    /// What the server calls itself in its metadata (RFC 8414 §2): its origin.
    pub fn issuer(&self) -> String {
        self.origin()
    }

    /// Where a login on another device begins (RFC 8628 §3.1).
    pub fn device_authorization_url(&self) -> String {
        self.origin() + "/device_authorization"
    }

    /// The login page (RFC 6749 §3.1).
    ///
    /// A test without a browser plays the person with one request: what the page was asked, who
    /// they are, and `allow` or `deny`.
    ///
    /// ```
    /// # use mock_server::MockServer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> reqwest::Result<()> {
    /// let server = MockServer::start();
    /// // What the program would open in a browser.
    /// let url = server.authorization_url()
    ///     + "?response_type=code&client_id=app&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2F&state=x\
    ///        &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
    ///
    /// let (page, asked) = url.split_once('?').unwrap();
    /// let said = format!("{asked}&username=alice&decision=allow");
    /// let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let answer = browser.post(page).body(said).send().await?;
    /// assert_eq!(answer.status(), 303);
    /// let back = answer.headers()["location"].to_str().unwrap();
    /// assert!(back.starts_with("http://127.0.0.1:9/?code="));
    /// # Ok(())
    /// # }
    /// ```
    pub fn authorization_url(&self) -> String {
        self.origin() + "/authorize"
    }

    /// The revocation endpoint (RFC 7009).
    pub fn revocation_url(&self) -> String {
        self.origin() + "/revoke"
    }

    /// The refresh endpoint in JSON style.
    pub fn refresh_json_url(&self) -> String {
        self.origin() + "/refresh-token"
    }

    /// The login in JSON style.
    pub fn login_json_url(&self) -> String {
        self.origin() + "/login"
    }

    /// A URL of the protected API: `/things?x=1` gives `<origin>/api/things?x=1`.
    pub fn api_url(&self, path_and_query: &str) -> String {
        let slash = if path_and_query.starts_with('/') { "" } else { "/" };
        format!("{}/api{slash}{path_and_query}", self.origin())
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        // Nobody receives if the thread is gone already; joining tells why.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let joined = self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            return;
        }
        if let Some(message) = self.shared.panicked.get() {
            panic!("a handler of the mock server panicked: {message}");
        }
        assert!(
            joined.is_none_or(|joined| joined.is_ok()),
            "the thread of the mock server panicked"
        );
    }
}

impl fmt::Debug for MockServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockServer")
            .field("addr", &self.addr)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Windows it would mean that others may listen there too.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, or a caller that hung up early. Neither may end the server.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        let local = peer.ip().to_canonical().is_loopback();
        let service = service_fn(move |request| routes::serve(shared.clone(), local, request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A connection ends in an error whenever a fault closes it.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// Long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Where more come at once, the system drops the rest, who try again a second later.
const BACKLOG: u32 = 4096;
