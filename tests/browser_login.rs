//! A login in a browser, from the issuer to a working call. The browser is played by plain HTTP
//! requests.

mod support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mock_server::{Fault, Metadata, MockServer, ResponseIss, Route};
use reqwest::{Client, Url};
use reqwest_reauth::{
    BrowserLogin, DeviceLogin, Error, MemoryStore, OAuth2Endpoint, Session, TokenResponse,
    TokenStore,
};
use support::{chain, client, soon};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A login under way.
struct Login {
    url: Url,
    result: JoinHandle<Result<TokenResponse, Error>>,
}

impl Login {
    async fn begin(login: BrowserLogin) -> Self {
        let (sender, url) = oneshot::channel();
        let show = move |url: &str| sender.send(url.to_owned()).unwrap();
        let result = tokio::spawn(login.without_browser().run(show));
        Self { url: soon(url).await.unwrap().parse().unwrap(), result }
    }

    async fn end(self) -> Result<TokenResponse, Error> {
        soon(self.result).await.unwrap()
    }

    /// A parameter of the login page's URL.
    fn said(&self, name: &str) -> String {
        let mut pairs = self.url.query_pairs();
        pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
    }
}

fn at_issuer(server: &MockServer) -> OAuth2Endpoint {
    OAuth2Endpoint::at_issuer(server.issuer(), "my-cli")
}

/// A browser that doesn't follow redirects by itself.
fn browser() -> Client {
    Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// What the person says on the login page: where the browser is sent with it.
async fn decide(url: &Url, decision: &str) -> Url {
    let page = browser().get(url.clone()).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let mut form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    form.push(("username".to_owned(), "alice".to_owned()));
    form.push(("decision".to_owned(), decision.to_owned()));
    let mut action = url.clone();
    action.set_query(None);
    let answer = browser().post(action).form(&form).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    answer.headers()["location"].to_str().unwrap().parse().unwrap()
}

/// The page that the program shows.
async fn page(url: Url) -> (u16, String) {
    let answer = browser().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_login_at_an_issuer_ends_in_a_call_and_the_server_is_asked_where_it_is_once() {
    for metadata in [Metadata::Both, Metadata::OAuth, Metadata::Oidc] {
        let server = MockServer::builder().metadata(metadata).start().unwrap();
        let (store, endpoint) = (MemoryStore::new(), at_issuer(&server));
        let program = || {
            let builder = Session::builder("test", at_issuer(&server)).store(store.clone());
            builder.origin(server.origin()).build().unwrap()
        };
        let login = Login::begin(BrowserLogin::new(&endpoint).scope("a b").scope("c")).await;
        assert_eq!(login.said("scope"), "a b c");
        assert_eq!(login.said("code_challenge_method"), "S256");
        let back = decide(&login.url, "allow").await;
        let (status, text) = page(back.clone()).await;
        assert_eq!(status, 200);
        assert!(text.contains("You are logged in") && text.contains("close this window"), "{text}");
        for (_, secret) in back.query_pairs() {
            assert!(!text.contains(&*secret), "{text}");
        }
        let tokens = login.end().await.unwrap();
        let session = program();
        session.log_in(tokens).await.unwrap();
        let get = async |session: &Session| {
            let answer = soon(client(session).get(server.api_url("things")).send()).await;
            answer.unwrap().status().as_u16()
        };
        assert_eq!(get(&session).await, 200);
        let asked = server.requests(Route::Metadata).len();
        assert_eq!(asked, if metadata == Metadata::Oidc { 2 } else { 1 });

        // Neither a later refresh nor another program asks again.
        server.on_next(Route::Metadata, 1, Fault::status(500));
        let next = program();
        server.expire_access_tokens();
        assert_eq!(get(&next).await, 200);
        assert_eq!(server.counters().refreshes, 1);
        server.expire_access_tokens();
        assert_eq!(get(&next).await, 200);
        let revocation = soon(next.log_out()).await.unwrap();
        assert_eq!(revocation, reqwest_reauth::Revocation::Revoked);
        assert_eq!(server.requests(Route::Metadata).len(), asked);
    }
}

#[tokio::test]
async fn tokens_given_by_hand_make_the_first_refresh_ask_and_no_other() {
    let server = MockServer::start();
    let store = MemoryStore::new();
    let builder = Session::builder("test", at_issuer(&server)).store(store.clone());
    let session = builder.origin(server.origin()).build().unwrap();
    session.log_in(support::tokens(&server.log_in("alice"))).await.unwrap();
    for _ in 0..3 {
        server.expire_access_tokens();
        let answer = client(&session).get(server.api_url("things")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(server.counters().refreshes, 3);
    assert_eq!(server.requests(Route::Metadata).len(), 1);
    let record = store.load().unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(record.as_bytes()).unwrap();
    assert_eq!(record["server"]["token_endpoint"], server.token_url());
}

#[tokio::test]
async fn a_refresh_token_goes_to_no_endpoint_that_the_issuer_names_later() {
    let (server, thief) = (MockServer::start(), MockServer::start());
    let endpoint = at_issuer(&server);
    let login = Login::begin(BrowserLogin::new(&endpoint)).await;
    page(decide(&login.url, "allow").await).await;
    let session = Session::builder("test", endpoint).store(MemoryStore::new());
    let session = session.origin(server.origin()).build().unwrap();
    session.log_in(login.end().await.unwrap()).await.unwrap();
    let elsewhere = thief.token_url();
    let moved = Fault::rewrite(move |body| body["token_endpoint"] = elsewhere.clone().into());
    server.on_next(Route::Metadata, 1, moved);
    server.expire_access_tokens();
    let answer = client(&session).get(server.api_url("things")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!((server.counters().refreshes, thief.counters().token_requests), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_not_the_issuer_or_has_no_metadata_gets_nothing() {
    let server = MockServer::start();
    let other = Fault::rewrite(|body| body["issuer"] = "https://evil.example.com".into());
    let insecure = Fault::rewrite(|body| body["token_endpoint"] = "http://id.example.com/t".into());
    for (fault, said) in [(other, "give exactly that"), (insecure, "must be https")] {
        server.on_next(Route::Metadata, 2, fault);
        let login = BrowserLogin::new(&at_issuer(&server)).without_browser();
        let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
        assert!(error.is_configuration(), "{error:?}");
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.contains(said) && text.starts_with("the authorization server"), "{text}");
    }
    let nothing = MockServer::builder().metadata(Metadata::Neither).start().unwrap();
    let login = BrowserLogin::new(&at_issuer(&nothing)).without_browser();
    let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
    assert!(error.is_configuration());
    assert_eq!(nothing.requests(Route::Metadata).len(), 2);

    // What answers everything is no metadata, and what is another issuer's is told in any case.
    let another = || Fault::rewrite(|body| body["issuer"] = "https://evil.example.com".into());
    for (first, is_transient) in [(Fault::status(200).body("<html>"), true), (another(), false)] {
        server.on_next(Route::Metadata, 1, first);
        server.on_next(Route::Metadata, 1, Fault::status(503));
        let login = BrowserLogin::new(&at_issuer(&server)).without_browser();
        let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
        assert_eq!((error.is_transient(), error.is_configuration()), (is_transient, !is_transient));
    }
    assert_eq!(server.requests(Route::Metadata).len(), 8);

    // And of what is broken more is told than of what is not there.
    server.on_next(Route::Metadata, 1, Fault::status(404));
    server.on_next(Route::Metadata, 1, Fault::status(200).body("{"));
    let login = BrowserLogin::new(&at_issuer(&server)).without_browser();
    let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.contains("openid-configuration: it can't be read"), "{text}");
    assert_eq!(server.requests(Route::Metadata).len(), 10);

    // Of two failures for now the first is told, also where the other place has nothing.
    server.on_next(Route::Metadata, 1, Fault::status(503));
    server.on_next(Route::Metadata, 1, Fault::status(502));
    server.on_next(Route::Metadata, 1, Fault::status(503));
    server.on_next(Route::Metadata, 1, Fault::status(404));
    for _ in 0..2 {
        let login = BrowserLogin::new(&at_issuer(&server)).without_browser();
        let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let text = format!("{:#}", anyhow::Error::new(error));
        let why = "oauth-authorization-server answered 503 Service Unavailable";
        assert!(text.ends_with(why), "{text}");
    }
    assert_eq!(server.requests(Route::Metadata).len(), 14);
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_place_that_fails_for_now_does_not_hide_the_metadata_at_the_other_one() {
    for fault in [Fault::status(502), Fault::status(429), Fault::DropBefore, Fault::DropHalf] {
        let server = MockServer::start();
        server.on_next(Route::Metadata, 1, fault);
        let metadata = soon(at_issuer(&server).discover()).await.unwrap();
        assert_eq!(metadata.token_endpoint().as_str(), server.token_url());
        assert_eq!(server.requests(Route::Metadata).len(), 2);
    }
}

#[tokio::test]
async fn a_place_that_never_answers_does_not_hide_the_metadata_at_the_other_one() {
    let server = MockServer::start();
    let hold = server.hold(Route::Metadata);
    let endpoint = at_issuer(&server);
    let asked = tokio::spawn(async move { endpoint.discover().await });
    hold.arrived(1).await;
    // However long a step is, its limit counts a quarter of a second.
    for _ in 0..40 {
        pass(Duration::from_millis(250)).await;
    }
    soon(hold.arrived(2)).await;
    hold.release();
    let metadata = soon(asked).await.unwrap().unwrap();
    assert_eq!(metadata.token_endpoint().as_str(), server.token_url());
    assert_eq!(server.requests(Route::Metadata).len(), 2);
}

#[tokio::test]
async fn an_endpoint_of_no_use_spoils_only_the_login_that_needs_it() {
    let server = MockServer::start();
    let spoil = |name: &'static str, said: &'static str| {
        server.on_next(Route::Metadata, 1, Fault::rewrite(move |body| body[name] = said.into()));
    };
    spoil("device_authorization_endpoint", "http://id.example.com/device");
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    assert_eq!(page(decide(&login.url, "allow").await).await.0, 200);
    login.end().await.unwrap();

    spoil("device_authorization_endpoint", "http://id.example.com/device");
    let login = DeviceLogin::new(&at_issuer(&server));
    let device = soon(login.run(|_| panic!("told"))).await.unwrap_err();
    spoil("authorization_endpoint", "http://id.example.com/login");
    let login = BrowserLogin::new(&at_issuer(&server)).without_browser();
    let browser = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
    for (error, said) in [
        (device, "device authorization endpoint that can be used: give it with .device_auth"),
        (browser, "names no authorization endpoint that can be used: give it with .authorization_"),
    ] {
        assert!(error.is_configuration(), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(server.counters().logins, 1);
    assert_eq!(server.requests(Route::DeviceAuthorization).len(), 0);
}

#[tokio::test]
async fn a_login_works_with_endpoints_given_by_hand() {
    let server = MockServer::builder().metadata(Metadata::Neither).start().unwrap();
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli");
    let error = BrowserLogin::new(&endpoint).run(|_| panic!("shown")).await.unwrap_err();
    assert!(error.to_string().contains(".authorization_url("), "{error}");
    let endpoint = endpoint.authorization_url(server.authorization_url());
    let login = Login::begin(BrowserLogin::new(&endpoint)).await;
    page(decide(&login.url, "allow").await).await;
    login.end().await.unwrap();
    assert_eq!(server.requests(Route::Metadata).len(), 0);
}

#[tokio::test]
async fn each_resource_is_named_on_the_login_page_and_in_the_token_request() {
    let server = MockServer::start();
    let (one, two) = ("https://one.example.com", "https://two.example.com");
    let login = BrowserLogin::new(&at_issuer(&server)).param("prompt", "consent");
    let login = Login::begin(login.param("resource", one).param("resource", two)).await;
    let shown = login.url.query_pairs().filter(|(name, _)| name == "resource");
    assert_eq!(shown.map(|(_, value)| value.into_owned()).collect::<Vec<_>>(), [one, two]);
    page(decide(&login.url, "allow").await).await;
    login.end().await.unwrap();
    let sent = server.requests(Route::Token);
    assert_eq!(sent.len(), 1);
    let form: Vec<_> = form_urlencoded::parse(&sent[0].body).into_owned().collect();
    let names: Vec<_> = form.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "grant_type",
            "code",
            "redirect_uri",
            "code_verifier",
            "resource",
            "resource",
            "client_id"
        ]
    );
    assert_eq!([&form[4].1, &form[5].1], [one, two]);
}

#[tokio::test]
async fn a_person_who_says_no_is_told_so_and_so_is_the_program() {
    let server = MockServer::start();
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    let (status, text) = page(decide(&login.url, "deny").await).await;
    assert_eq!(status, 200);
    assert!(text.contains("You are not logged in"), "{text}");
    let error = login.end().await.unwrap_err();
    assert!(error.is_denied() && !error.is_transient(), "{error:?}");

    // In other words.
    for no in ["user_cancelled_login", "user_cancelled_authorize"] {
        let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
        let mut back = decide(&login.url, "deny").await;
        let said = back.query_pairs().into_owned().map(|(name, value)| match name.as_str() {
            "error" => (name, no.to_owned()),
            _ => (name, value),
        });
        let said: Vec<_> = said.collect();
        back.query_pairs_mut().clear().extend_pairs(said);
        let (status, text) = page(back).await;
        assert_eq!(status, 200);
        assert!(text.contains("You are not logged in"), "{text}");
        assert!(login.end().await.unwrap_err().is_denied(), "{no}");
    }
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn an_answer_of_another_login_neither_ends_this_one_nor_counts() {
    let server = MockServer::start();
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    let back = decide(&login.url, "allow").await;
    for state in [Some("other"), Some(""), None] {
        let mut stale = back.clone();
        let kept = back.query_pairs().filter(|(name, _)| name != "state");
        stale.query_pairs_mut().clear().extend_pairs(kept);
        if let Some(state) = state {
            stale.query_pairs_mut().append_pair("state", state);
        }
        let (status, text) = page(stale).await;
        assert_eq!(status, 400);
        assert!(text.contains("not the login under way"), "{text}");
    }
    let mut twice = back.clone();
    twice.query_pairs_mut().append_pair("state", "other");
    assert_eq!(page(twice).await.0, 400);
    let mut elsewhere = back.clone();
    elsewhere.set_path("/favicon.ico");
    assert_eq!(page(elsewhere).await.0, 404);
    assert_eq!(server.counters().token_requests, 0);
    assert_eq!(page(back).await.0, 200);
    login.end().await.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_issuer_or_of_none_where_one_is_due_is_refused() {
    let other = ResponseIss::Value("https://evil.example.com".to_owned());
    for (iss, ok) in [(other, false), (ResponseIss::Missing, false), (ResponseIss::Absent, true)] {
        let server = MockServer::builder().response_iss(iss.clone()).start().unwrap();
        let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
        let (status, _) = page(decide(&login.url, "allow").await).await;
        assert_eq!(status, if ok { 200 } else { 400 }, "{iss:?}");
        let result = login.end().await;
        assert_eq!(result.is_ok(), ok, "{iss:?}");
        assert_eq!(server.counters().token_requests, u64::from(ok));
    }
}

#[tokio::test]
async fn an_answer_that_says_two_things_at_once_is_refused() {
    let server = MockServer::start();
    for name in ["code", "iss", "error"] {
        let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
        let mut back = decide(&login.url, "allow").await;
        back.query_pairs_mut().append_pair(name, "other").append_pair(name, "another");
        assert_eq!(page(back).await.0, 400);
        let error = login.end().await.unwrap_err();
        assert!(error.to_string().contains("says something twice"), "{name}: {error}");
    }
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_code_without_its_verifier_is_worth_nothing() {
    let server = MockServer::start();
    let (mine, theirs) = (
        Login::begin(BrowserLogin::new(&at_issuer(&server))).await,
        Login::begin(BrowserLogin::new(&at_issuer(&server))).await,
    );
    let stolen = decide(&theirs.url, "allow").await;
    let code = stolen.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut back: Url = mine.said("redirect_uri").parse().unwrap();
    let brings = [("code", code), ("state", mine.said("state")), ("iss", server.issuer())];
    back.query_pairs_mut().extend_pairs(brings);
    let (status, text) = page(back).await;
    assert_eq!(status, 400);
    assert!(text.contains("The login failed"), "{text}");
    let error = mine.end().await.unwrap_err();
    assert!(error.to_string().contains("gave no tokens"), "{error}");
    assert_eq!(server.counters().logins, 0);
}

#[tokio::test]
async fn tokens_that_can_not_be_sent_are_no_login_and_the_page_says_so() {
    let server = MockServer::start();
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    server.on_next(Route::Token, 1, Fault::rewrite(|body| body["token_type"] = "mac".into()));
    let (status, text) = page(decide(&login.url, "allow").await).await;
    assert_eq!(status, 400);
    assert!(text.contains("The login failed"), "{text}");
    let error = login.end().await.unwrap_err();
    assert!(!error.is_transient() && !error.is_configuration(), "{error:?}");
    let text = chain(&error);
    assert!(text.ends_with("the token response has a token_type other than Bearer"), "{text}");
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn nobody_who_comes_in_time_ends_the_login_and_frees_the_port() {
    let server = MockServer::start();
    let login = BrowserLogin::new(&at_issuer(&server)).timeout(Duration::from_millis(50));
    let login = Login::begin(login).await;
    let back: Url = login.said("redirect_uri").parse().unwrap();
    let error = login.end().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_transient(), "{error:?}");
    TcpListener::bind(("127.0.0.1", back.port().unwrap())).unwrap();
}

/// Lets all that is under way find that so much time has passed.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    // Ends only once nobody else has anything left to do.
    tokio::time::sleep(Duration::from_millis(1)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_answer_of_another_login_gives_the_person_no_more_time() {
    let server = MockServer::start();
    let patience = Duration::from_secs(60);
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server)).timeout(patience)).await;
    let stale = login.said("redirect_uri") + "?code=a&state=other";
    pass(patience - Duration::from_secs(20)).await;
    assert_eq!(page(stale.parse().unwrap()).await.0, 400);
    assert!(!login.result.is_finished());
    pass(Duration::from_secs(20)).await;
    assert!(login.end().await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn a_person_who_comes_at_the_last_moment_gets_the_tokens_however_long_they_take() {
    let server = MockServer::start();
    let patience = Duration::from_secs(60);
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server)).timeout(patience)).await;
    let back = decide(&login.url, "allow").await;
    let hold = server.hold_answers(Route::Token);
    let page = tokio::spawn(page(back));
    hold.arrived(1).await;
    // The person's time ends in one step, of which the exchange's own limit counts a moment only.
    pass(patience).await;
    hold.release();
    let (status, text) = soon(page).await.unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("You are logged in"), "{text}");
    login.end().await.unwrap();
    assert_eq!((server.counters().logins, server.counters().token_requests), (1, 1));
}

#[tokio::test]
async fn a_login_that_is_dropped_leaves_nothing_behind() {
    let server = MockServer::start();
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    let back: Url = login.said("redirect_uri").parse().unwrap();
    login.result.abort();
    assert!(soon(login.result).await.unwrap_err().is_cancelled());
    TcpListener::bind(("127.0.0.1", back.port().unwrap())).unwrap();
}

#[tokio::test]
async fn a_connection_that_the_browser_opens_and_never_uses_is_not_waited_for() {
    let server = MockServer::start();
    let login = Login::begin(BrowserLogin::new(&at_issuer(&server))).await;
    let back: Url = login.said("redirect_uri").parse().unwrap();
    let mut idle = TcpStream::connect(("127.0.0.1", back.port().unwrap())).unwrap();
    let back = decide(&login.url, "allow").await;
    let begun = Instant::now();
    assert_eq!(page(back).await.0, 200);
    login.end().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "it is closed");
}

#[tokio::test]
async fn a_port_in_use_and_a_place_that_is_not_this_machine_are_told() {
    let server = MockServer::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/callback", taken.local_addr().unwrap());
    let login = BrowserLogin::new(&at_issuer(&server)).redirect_uri(uri);
    let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
    assert!(error.to_string().contains("nothing can listen at 127.0.0.1 port"), "{error}");

    let login = BrowserLogin::new(&at_issuer(&server)).redirect_uri("http://localhost:1/callback");
    let error = soon(login.run(|_| panic!("shown"))).await.unwrap_err();
    assert!(error.is_configuration() && error.to_string().contains("not localhost"), "{error}");
}

#[tokio::test]
async fn a_fixed_redirect_uri_is_kept_letter_by_letter_and_ipv6_works_too() {
    let server = MockServer::start();
    for (host, path) in [("127.0.0.1", "/oauth/back"), ("[::1]", "/oauth/back"), ("127.0.0.1", "")]
    {
        let free = TcpListener::bind(format!("{host}:0")).unwrap().local_addr().unwrap();
        let uri = format!("http://{host}:{}{path}", free.port());
        let login = BrowserLogin::new(&at_issuer(&server)).redirect_uri(&uri);
        let login = Login::begin(login).await;
        assert_eq!(login.said("redirect_uri"), uri);
        assert_eq!(page(decide(&login.url, "allow").await).await.0, 200);
        login.end().await.unwrap();
        let sent = server.requests(Route::Token).pop().unwrap();
        let mut sent = form_urlencoded::parse(&sent.body);
        assert_eq!(sent.find(|(name, _)| name == "redirect_uri").unwrap().1, uri);
    }
}
