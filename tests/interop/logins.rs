//! Logins as a person makes them: in Chromium, on the pages of the mock server and of
//! oidc-provider.

use std::sync::Arc;
use std::time::Duration;

use mock_server::MockServer;
use reqwest_reauth::{
    BrowserLogin, DeviceLogin, DeviceProgress, Error, LogoutReason, MemoryStore, OAuth2Endpoint,
    Revocation, Session, TokenResponse,
};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::chromium::Chromium;
use crate::oidc_provider;
use crate::process::Process;
use crate::server::{NATIVE_ID, Server};
use crate::support::{client, found, soon};

type Login = JoinHandle<Result<TokenResponse, Error>>;

fn endpoint(issuer: &str) -> OAuth2Endpoint {
    OAuth2Endpoint::at_issuer(issuer, NATIVE_ID)
}

/// A login that lasts: by the book, a server wants to be asked for the consent to that (OpenID
/// Connect Core §11).
fn in_browser(issuer: &str) -> BrowserLogin {
    let login = BrowserLogin::new(&endpoint(issuer)).without_browser();
    login.scope("openid offline_access").param("prompt", "consent")
}

/// The login, and its page.
async fn begin(login: BrowserLogin) -> (Login, String) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let show = move |url: &str| tell.send(url.to_owned()).unwrap();
    let login = tokio::spawn(login.run(show));
    (login, soon(told.recv()).await.unwrap())
}

/// The login, its page with and without the code, and the code.
async fn begin_on_device(issuer: &str) -> (Login, [String; 3]) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let show = move |progress: DeviceProgress<'_>| {
        if let DeviceProgress::Prompt(prompt) = progress {
            let complete = prompt.verification_uri_complete().unwrap().to_owned();
            let (uri, code) = (prompt.verification_uri(), prompt.user_code());
            tell.send([complete, uri.to_owned(), code.to_owned()]).unwrap();
        }
    };
    let login = DeviceLogin::new(&endpoint(issuer)).scope("openid offline_access");
    let login = tokio::spawn(login.run(show));
    (login, soon(told.recv()).await.unwrap())
}

fn session(server: &impl Server) -> Session {
    let builder = Session::builder("interop", endpoint(&server.origin())).store(MemoryStore::new());
    builder.origin(server.origin()).build().unwrap()
}

/// The tokens of a login serve a call, a refresh and the logout; and who has logged in.
async fn serves(server: &impl Server, tokens: TokenResponse) -> String {
    let session = session(server);
    session.log_in(tokens).await.unwrap();
    let first = who(server, &session).await.unwrap();
    server.expire_access_tokens().await;
    assert_eq!(who(server, &session).await.unwrap(), first);
    assert_eq!(session.metrics().refreshes, 1);
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(found(&who(server, &session).await.unwrap_err()).is_logged_out());
    first
}

async fn who(server: &impl Server, session: &Session) -> reqwest_middleware::Result<String> {
    let answer = soon(client(session).get(server.api_url("who")).send()).await?;
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await?;
    Ok(answer["user"].as_str().unwrap().to_owned())
}

/// The page that the program shows has nothing of what only the program may know.
async fn ends_with(browser: &Chromium, heading: &str) {
    let text = browser.reads(heading).await;
    assert!(text.ends_with("You can close this window."), "{text}");
}

/// At oidc-provider: who the person is, and that the program may act for them.
async fn log_in_there(browser: &Chromium, name: &str) {
    browser.write("input[name=login]", name).await;
    browser.write("input[name=password]", "any will do").await;
    browser.click("button.login-submit").await;
    browser.sees("input[name=prompt][value=consent]").await;
    browser.click("button.login-submit").await;
}

#[tokio::test]
async fn a_login_on_the_mock_servers_page_ends_in_a_call_or_with_the_persons_no() {
    let (server, browser) = (MockServer::start(), Chromium::open().await);
    let (login, page) = begin(in_browser(&server.origin())).await;
    browser.go(&page).await;
    browser.write("#username", "carol").await;
    browser.click("#allow").await;
    ends_with(&browser, "You are logged in").await;
    let tokens = soon(login).await.unwrap().unwrap();
    assert_eq!(serves(&server, tokens).await, "carol");

    let (login, page) = begin(in_browser(&server.origin())).await;
    browser.go(&page).await;
    browser.click("#deny").await;
    ends_with(&browser, "You are not logged in").await;
    assert!(soon(login).await.unwrap().unwrap_err().is_denied());
    browser.close().await;
}

#[tokio::test]
async fn a_login_on_another_device_at_the_mock_server_takes_the_code_from_the_person() {
    let (server, browser) = (MockServer::start(), Chromium::open().await);
    let (login, [_, page, code]) = begin_on_device(&server.origin()).await;
    browser.go(&page).await;
    browser.write("#user_code", &code.to_lowercase()).await;
    browser.write("#username", "carol").await;
    browser.click("#allow").await;
    browser.reads("The other device is logged in").await;
    let tokens = soon(login).await.unwrap().unwrap();
    assert_eq!(serves(&server, tokens).await, "carol");
    browser.close().await;
}

#[tokio::test]
async fn a_person_who_closes_the_browser_is_waited_for_so_long_and_no_port_stays_open() {
    let (server, browser) = (MockServer::start(), Chromium::open().await);
    let (login, page) = begin(in_browser(&server.origin()).timeout(Duration::from_secs(5))).await;
    browser.go(&page).await;
    browser.sees("#allow").await;
    let (_, redirect) = page.split_once("redirect_uri=http%3A%2F%2F127.0.0.1%3A").unwrap();
    let port: u16 = redirect.split_once("%2F").unwrap().0.parse().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
    browser.close().await;
    assert!(soon(login).await.unwrap().unwrap_err().is_timeout());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn a_login_on_oidc_providers_pages_ends_in_a_call_or_with_the_persons_no() {
    let (server, browser) = (oidc_provider::with_pages(), Chromium::open().await);
    let (login, page) = begin(in_browser(&server.origin())).await;
    browser.go(&page).await;
    log_in_there(&browser, "carol").await;
    ends_with(&browser, "You are logged in").await;
    let tokens = soon(login).await.unwrap().unwrap();
    assert_eq!(serves(&server, tokens).await, "carol");

    server.revoke().await;
    let (login, page) = begin(in_browser(&server.origin())).await;
    browser.go(&page).await;
    browser.click("a[href$='/abort']").await;
    ends_with(&browser, "You are not logged in").await;
    assert!(soon(login).await.unwrap().unwrap_err().is_denied());
    browser.close().await;
}

#[tokio::test]
async fn a_login_on_another_device_at_oidc_provider_ends_in_a_call_or_with_the_persons_no() {
    let (server, browser) = (oidc_provider::with_pages(), Chromium::open().await);
    let (login, [page, ..]) = begin_on_device(&server.origin()).await;
    browser.go(&page).await;
    browser.click("button[type=submit][autofocus]").await;
    log_in_there(&browser, "carol").await;
    browser.reads("Sign-in Success").await;
    let tokens = soon(login).await.unwrap().unwrap();
    assert_eq!(serves(&server, tokens).await, "carol");

    let (login, [page, ..]) = begin_on_device(&server.origin()).await;
    browser.go(&page).await;
    browser.click("button[name=abort]").await;
    assert!(soon(login).await.unwrap().unwrap_err().is_denied());
    browser.close().await;
}

/// A program at oidc-provider that asks a person to log in where a request needs it.
struct Asking {
    server: Process,
    session: Session,
    pages: Arc<Mutex<mpsc::UnboundedReceiver<String>>>,
    browser: Chromium,
}

impl Asking {
    async fn new() -> Self {
        let (server, browser) = (oidc_provider::with_pages(), Chromium::open().await);
        let (tell, pages) = mpsc::unbounded_channel();
        let at = server.origin();
        let session = Session::builder("interop", endpoint(&at))
            .origin(server.origin())
            .store(MemoryStore::new())
            .login(move || {
                let tell = tell.clone();
                in_browser(&at).run(move |page| tell.send(page.to_owned()).unwrap())
            })
            .build()
            .unwrap();
        Self { server, session, pages: Arc::new(Mutex::new(pages)), browser }
    }

    /// What `count` requests come to, while this person logs in.
    async fn requests(
        &self,
        count: usize,
        person: &str,
    ) -> Vec<reqwest_middleware::Result<reqwest::Response>> {
        let url = self.server.api_url("who");
        let client = client(&self.session);
        let requests: Vec<_> = (0..count).map(|_| client.get(&url).send()).collect();
        let requests = tokio::spawn(crate::support::join_all(requests));
        let page = soon(async { self.pages.lock().await.recv().await }).await.unwrap();
        self.browser.go(&page).await;
        log_in_there(&self.browser, person).await;
        ends_with(&self.browser, "You are logged in").await;
        let results = soon(requests).await.unwrap();
        assert!(self.pages.lock().await.is_empty(), "one page, however many requests");
        results
    }
}

#[tokio::test]
async fn fifty_requests_wait_for_one_login_in_the_browser_and_go_on_for_the_same_person() {
    let t = Asking::new().await;
    for round in 0..2 {
        for result in t.requests(50, "carol").await {
            assert_eq!(result.unwrap().status(), 200, "round {round}");
        }
        // The server ends it all, its own login included.
        t.server.revoke().await;
    }
    for result in t.requests(50, "dave").await {
        let reason = found(&result.unwrap_err()).logout_reason();
        assert_eq!(reason, Some(LogoutReason::Revoked));
    }
    assert_eq!(who(&t.server, &t.session).await.unwrap(), "dave");
    t.browser.close().await;
}
