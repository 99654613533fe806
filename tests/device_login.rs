//! A login on another device.

mod support;

use std::time::{Duration, Instant};

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{DeviceLogin, DeviceProgress, Error, OAuth2Endpoint, TokenResponse};
use serde_json::json;
use support::{chain, form, pairs, soon};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A login under way, and what it tells the person.
struct Login {
    result: JoinHandle<Result<TokenResponse, Error>>,
    told: mpsc::UnboundedReceiver<String>,
    user_code: String,
}

impl Login {
    async fn begin(server: &MockServer) -> Self {
        Self::begin_with(server, |login| login).await
    }

    async fn begin_with(server: &MockServer, set: impl FnOnce(DeviceLogin) -> DeviceLogin) -> Self {
        let endpoint = OAuth2Endpoint::at_issuer(server.issuer(), "my-cli");
        let (sender, mut told) = mpsc::unbounded_channel();
        let (codes, mut code) = mpsc::unbounded_channel();
        let tell = move |progress: DeviceProgress<'_>| {
            if let DeviceProgress::Prompt(prompt) = progress {
                codes.send(prompt.user_code().to_owned()).unwrap();
            }
            sender.send(progress.to_string()).unwrap();
        };
        let result = tokio::spawn(set(DeviceLogin::new(&endpoint).scope("a b")).run(tell));
        let user_code = soon(code.recv()).await.unwrap();
        let prompt = soon(told.recv()).await.unwrap();
        assert_eq!(
            prompt,
            format!("open {}/device and enter the code {user_code}", server.origin())
        );
        Self { result, told, user_code }
    }

    async fn told(&mut self) -> String {
        soon(self.told.recv()).await.unwrap()
    }

    async fn end(self) -> Result<TokenResponse, Error> {
        soon(self.result).await.unwrap()
    }
}

/// The pauses are 1, 2, and then 4 seconds, which would be after its end.
#[tokio::test]
async fn a_server_that_could_not_be_reached_is_asked_once_more_before_the_code_ends() {
    let server = MockServer::builder().device_ttl(Duration::from_secs(6)).start().unwrap();
    let mut login = Login::begin(&server).await;
    server.on_next(Route::Token, 2, Fault::DropBefore);
    for _ in 0..2 {
        login.told().await;
    }
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    assert_eq!(server.counters().logins, 1);
}

fn refusal(error: &str) -> Fault {
    Fault::status(400).json(&json!({ "error": error }))
}

#[tokio::test]
async fn a_code_that_is_entered_elsewhere_brings_the_tokens() {
    let server = MockServer::start();
    let mut login = Login::begin(&server).await;
    let asked = &server.requests(Route::DeviceAuthorization)[0];
    assert!(String::from_utf8_lossy(&asked.body).contains("scope=a+b"));
    assert!(login.told().await.starts_with("waiting, "));
    assert!(server.approve_device(&login.user_code.to_lowercase(), "alice"));
    let tokens = login.end().await.unwrap();
    assert_eq!((server.counters().logins, server.counters().device_polls), (1, 2));
    // And they are a login.
    let session = reqwest_reauth::Session::builder(
        "test",
        OAuth2Endpoint::at_issuer(server.issuer(), "my-cli"),
    );
    let store = reqwest_reauth::MemoryStore::new();
    let session = session.store(store).origin(server.origin()).build().unwrap();
    session.log_in(tokens).await.unwrap();
    server.expire_access_tokens();
    let answer = support::client(&session).get(server.api_url("things")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(server.requests(Route::Metadata).len(), 1);
}

#[tokio::test]
async fn each_resource_is_named_when_the_login_begins_and_in_the_token_request() {
    let server = MockServer::start();
    let (one, two) = ("https://one.example.com", "https://two.example.com");
    let name = |login: DeviceLogin| login.param("resource", one).param("resource", two);
    let login = Login::begin_with(&server, |login| name(login).param("audience", "a")).await;
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    let form = |route| {
        let mut form = form(&server.requests(route));
        form.retain(|(name, _)| name != "device_code");
        form
    };
    let (first, second) = (("resource", one), ("resource", two));
    let id = ("client_id", "my-cli");
    let begin = [("scope", "a b"), first, second, ("audience", "a"), id];
    assert_eq!(form(Route::DeviceAuthorization), pairs(&begin));
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!(form(Route::Token), pairs(&[grant, first, second, id]));
}

#[tokio::test]
async fn a_person_who_says_no_and_a_code_that_ends_are_told_apart() {
    let server = MockServer::start();
    let login = Login::begin(&server).await;
    assert!(server.deny_device(&login.user_code));
    let error = login.end().await.unwrap_err();
    assert!(error.is_denied() && !error.is_timeout(), "{error:?}");

    let login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, refusal("authorization_declined"));
    let error = login.end().await.unwrap_err();
    assert!(error.is_denied() && !error.is_timeout(), "{error:?}");

    let brief = MockServer::builder().device_ttl(Duration::from_millis(1500)).start().unwrap();
    let error = Login::begin(&brief).await.end().await.unwrap_err();
    assert!(error.is_timeout() && !error.is_denied(), "{error:?}");

    let login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, refusal("expired_token"));
    let error = login.end().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_it_is_asked_five_seconds_later_from_then_on() {
    let server = MockServer::start();
    let begun = Instant::now();
    let login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, refusal("slow_down"));
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1 + 6), "{:?}", begun.elapsed());
    assert_eq!(server.counters().token_requests, 2);
}

#[tokio::test]
async fn without_an_interval_it_is_five_seconds() {
    let server = MockServer::builder().device_interval(None).start().unwrap();
    let begun = Instant::now();
    let login = Login::begin(&server).await;
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_network_that_comes_and_goes_does_not_end_the_login() {
    let server = MockServer::start();
    let mut login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, Fault::DropBefore);
    let told = login.told().await;
    assert_eq!(
        told,
        "the authorization server could not be asked for now; trying again in 2 seconds"
    );
    server.on_next(Route::Token, 1, Fault::status(503));
    let told = login.told().await;
    assert!(told.ends_with("trying again in 4 seconds"), "{told}");
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    assert_eq!(server.counters().token_requests, 3);
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says_and_before_the_code_ends() {
    let busy = |seconds: &str| Fault::status(429).header("retry-after", seconds);
    let server = MockServer::start();
    server.on_next(Route::Token, 1, busy("90"));
    let mut login = Login::begin(&server).await;
    let told = login.told().await;
    assert!(told.ends_with("trying again in 90 seconds"), "{told}");
    login.result.abort();

    let server = MockServer::builder().device_ttl(Duration::from_secs(4)).start().unwrap();
    server.on_next(Route::Token, 1, busy("90"));
    let login = Login::begin(&server).await;
    assert!(server.approve_device(&login.user_code, "alice"));
    login.end().await.unwrap();
    assert_eq!(server.counters().token_requests, 2);
}

#[tokio::test]
async fn any_other_refusal_ends_the_login() {
    let server = MockServer::start();
    let login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, refusal("invalid_client"));
    let error = login.end().await.unwrap_err();
    assert!(error.is_configuration(), "{error:?}");
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn tokens_that_can_not_be_sent_are_no_login() {
    let server = MockServer::start();
    let login = Login::begin(&server).await;
    server.on_next(Route::Token, 1, Fault::rewrite(|body| body["token_type"] = "mac".into()));
    assert!(server.approve_device(&login.user_code, "alice"));
    let error = login.end().await.unwrap_err();
    assert!(!error.is_transient() && !error.is_configuration(), "{error:?}");
    let text = chain(&error);
    assert!(text.ends_with("the token response has a token_type other than Bearer"), "{text}");
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn what_fails_before_there_is_a_code_is_not_told_as_the_token_endpoints() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::at_issuer(server.issuer(), "my-cli");
    let text = async |endpoint: &OAuth2Endpoint| {
        let error = soon(DeviceLogin::new(endpoint).run(|_| panic!("told"))).await.unwrap_err();
        format!("{:#}", anyhow::Error::new(error))
    };
    for (route, fault, said) in [
        (
            Route::DeviceAuthorization,
            Fault::status(404),
            ": the device authorization endpoint answered 404: check its URL",
        ),
        (
            Route::DeviceAuthorization,
            Fault::DropHalf,
            ": the device authorization endpoint gave no whole answer: ",
        ),
        (
            Route::Metadata,
            Fault::DropHalf,
            " can't be read now: the authorization server gave no whole answer: ",
        ),
    ] {
        // The metadata is asked for in two places.
        let times = if route == Route::Metadata { 2 } else { 1 };
        server.on_next(route, times, fault);
        let text = text(&endpoint).await;
        assert!(text.contains(said) && !text.contains("token"), "{text}");
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = endpoint.device_authorization_url(format!("http://{unused}/device"));
    let text = text(&nobody).await;
    let said = ": could not connect to the device authorization endpoint: ";
    assert!(text.contains(said) && !text.contains("token"), "{text}");
}

#[tokio::test]
async fn an_answer_that_would_write_on_the_terminal_is_refused() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::at_issuer(server.issuer(), "my-cli");
    let bad = [
        Fault::rewrite(|body| body["user_code"] = "\u{1b}[2J".into()),
        Fault::rewrite(|body| body["user_code"] = "".into()),
        Fault::rewrite(|body| body["verification_uri"] = "javascript:alert(1)".into()),
        Fault::rewrite(|body| body["verification_uri"] = "nowhere".into()),
    ];
    for fault in bad {
        server.on_next(Route::DeviceAuthorization, 1, fault);
        let login = DeviceLogin::new(&endpoint).run(|_| panic!("told"));
        let error = soon(login).await.unwrap_err();
        assert!(!error.is_transient() && !error.is_denied(), "{error:?}");
    }
}

#[tokio::test]
async fn the_qr_code_is_of_the_page_with_the_code_in_it() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::at_issuer(server.issuer(), "my-cli");
    let (sender, mut prompts) = mpsc::unbounded_channel();
    let tell = move |progress: DeviceProgress<'_>| {
        if let DeviceProgress::Prompt(prompt) = progress {
            sender.send(prompt.clone()).unwrap();
        }
    };
    let login = tokio::spawn(DeviceLogin::new(&endpoint).run(tell));
    let prompt = soon(prompts.recv()).await.unwrap();
    login.abort();
    let complete = format!("{}/device?user_code={}", server.origin(), prompt.user_code());
    assert_eq!(prompt.verification_uri_complete(), Some(&*complete));
    let code = prompt.qr_code().unwrap();
    let lines: Vec<_> = code.lines().collect();
    assert!(lines.len() > 10 && lines.iter().all(|line| !line.is_empty()), "{code}");
    assert!(!format!("{prompt:?}").contains(prompt.user_code()));
    assert!(format!("{prompt:?}").starts_with("DevicePrompt { expires_in: "));
}
