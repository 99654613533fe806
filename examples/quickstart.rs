//! The whole story, with nothing to install: `cargo run --example quickstart`.
//!
//! A mock authorization server with a protected API runs inside this program. It rotates its
//! refresh tokens and revokes the session of whoever presents one twice. The exit code is 0 only
//! if every count is exact.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mock_server::{Counters, Fault, Issued, MockServer, Route};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{Event, MemoryStore, OAuth2Endpoint, Session, TokenResponse, redirect_policy};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let server = MockServer::start();
    println!("A mock server answers at {}; tokens are kept in memory.", server.origin());

    // Four lines of set-up, and two for the client.
    let logouts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&logouts);
    let endpoint = OAuth2Endpoint::new(server.token_url(), "quickstart");
    let session = Session::builder("quickstart", endpoint)
        .origin(server.origin())
        .store(MemoryStore::new())
        .on_logout(move |why| {
            println!("   on_logout: {why}");
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .build()?;
    let http = reqwest::Client::builder().redirect(redirect_policy()).build()?;
    let client = ClientBuilder::new(http).with(session.middleware()).build();

    let mut story = Story::new(server, session, client);
    story.log_in().await?;
    story.many_requests_on_an_expired_token().await;
    story.a_refresh_that_nobody_waits_for().await;
    story.a_caller_that_goes_away().await;
    story.a_session_that_the_server_ends().await;
    story.session.drain().await;
    story.check("on_logout was called", logouts.load(Ordering::SeqCst), 1);
    Ok(story.end())
}

struct Story {
    server: MockServer,
    session: Session,
    client: ClientWithMiddleware,
    rows: Vec<(&'static str, Counters, u64)>,
    wrong: u64,
}

impl Story {
    fn new(server: MockServer, session: Session, client: ClientWithMiddleware) -> Self {
        let (rows, wrong) = (Vec::new(), 0);
        Self { server, session, client, rows, wrong }
    }

    async fn log_in(&mut self) -> Result<(), Box<dyn Error>> {
        println!("\n1. Alice logs in, once. From here on the session keeps her logged in.");
        // Three seconds, says the server, so that step 3 doesn't take long.
        self.session.log_in(tokens(&self.server.log_in("alice"))?).await?;
        self.server.reset_counters();
        let status = self.get("hello").await;
        println!("   GET /api/hello: {}", told(&status));
        self.row("a request", u64::from(status != Ok(200)));
        self.check("answered 200", u64::from(status == Ok(200)), 1);
        Ok(())
    }

    async fn many_requests_on_an_expired_token(&mut self) {
        println!("\n2. The access token expires, and 100 requests go out at once.");
        self.server.expire_access_tokens();
        self.server.barrier(Route::Api, 100);
        self.server.on_next(Route::Token, 1, Fault::rewrite(|json| json["expires_in"] = 3.into()));
        let answered = self.get_many(100).await.iter().filter(|s| **s == Ok(200)).count() as u64;
        let seen = self.row("100 on an expired token", 100 - answered);
        println!(
            "   {} × 401, {} refresh, and 100 requests sent again: {answered} × 200.",
            seen.api_unauthorized, seen.refreshes
        );
        self.check("answered 200", answered, 100);
        self.check("refused first", seen.api_unauthorized, 100);
        self.check("refreshes", seen.refreshes, 1);
    }

    async fn a_refresh_that_nobody_waits_for(&mut self) {
        println!("\n3. The new token lives 3 seconds; requests go on, one after the other.");
        // The server holds the refresh back, so that whoever waited for it would be stuck.
        let held = self.server.hold(Route::Token);
        let mut events = self.session.events();
        let (mut sent, mut failed) = (0, 0);
        while held.count() == 0 {
            failed += u64::from(self.get("steady").await != Ok(200));
            sent += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("   After {sent} of them a refresh is under way in the background,");
        for _ in 0..10 {
            failed += u64::from(self.get("steady").await != Ok(200));
            sent += 1;
        }
        println!("   and 10 more are answered while it is.");
        held.release();
        let refreshed = matches!(events.next().await, Some(Event::Refreshed));
        failed += u64::from(self.get("steady").await != Ok(200));
        sent += 1;
        println!("   The next one carries the new token.");
        let seen = self.row("steady, token near its end", failed);
        self.check("requests refused", seen.api_unauthorized, 0);
        self.check("requests", seen.api_requests, sent);
        self.check("refreshes", seen.refreshes, u64::from(refreshed));
    }

    async fn a_caller_that_goes_away(&mut self) {
        println!(
            "\n4. A request needs a refresh, and is cancelled while the answer is on its way."
        );
        self.server.expire_access_tokens();
        let answer = self.server.hold_answers(Route::Token);
        let (client, url) = (self.client.clone(), self.server.api_url("cancelled"));
        let caller = tokio::spawn(async move { client.get(url).send().await });
        answer.arrived(1).await;
        caller.abort();
        let cancelled = caller.await.is_err_and(|e| e.is_cancelled());
        println!("   The server has rotated the refresh token; the caller is gone.");
        answer.release();
        let status = self.get("next").await;
        println!("   The next request: {}. The refresh went on without its caller.", told(&status));
        let seen = self.row("a caller cancelled", u64::from(status != Ok(200)));
        self.check("callers cancelled", u64::from(cancelled), 1);
        self.check("refreshes", seen.refreshes, 1);
        self.check("answered 200", seen.api_ok, 1);
    }

    async fn a_session_that_the_server_ends(&mut self) {
        println!("\n5. The server revokes the session, and 20 requests go out at once.");
        self.server.revoke_user("alice");
        self.server.reset_counters();
        let answers = self.get_many(20).await;
        let logged_out =
            answers.iter().filter(|s| s.as_ref().is_err_and(|e| e == LOGGED_OUT)).count();
        let seen = self.row("a revoked session", 20 - logged_out as u64);
        println!("   {logged_out} × \"logged out\", {} refresh tried.", seen.token_requests);
        self.check("told to log in again", logged_out as u64, 20);
        self.check("refreshes tried", seen.token_requests, 1);
    }

    /// The status, or what went wrong in words.
    async fn get(&self, path: &str) -> Result<u16, String> {
        get(self.client.clone(), self.server.api_url(path)).await
    }

    async fn get_many(&self, count: usize) -> Vec<Result<u16, String>> {
        let mut requests = JoinSet::new();
        for number in 0..count {
            let url = self.server.api_url(&format!("items/{number}"));
            requests.spawn(get(self.client.clone(), url));
        }
        requests.join_all().await
    }

    /// Notes what the server counted in this step.
    fn row(&mut self, what: &'static str, failures: u64) -> Counters {
        let seen = self.server.counters();
        self.rows.push((what, seen, failures));
        self.server.reset_counters();
        self.check("refresh tokens used twice", seen.reuses, 0);
        self.check("unexpected failures", failures, 0);
        seen
    }

    fn check(&mut self, what: &str, got: u64, expected: u64) {
        if got != expected {
            println!("   WRONG: {what}: {got}, expected {expected}");
            self.wrong += 1;
        }
    }

    fn end(self) -> ExitCode {
        println!("\n   {:<28} requests  refreshes  reuses  failures", "as the server counted");
        let mut sum = [0; 4];
        for (what, seen, failures) in self.rows {
            let numbers = [seen.api_requests, seen.refreshes, seen.reuses, failures];
            print_row(what, numbers);
            sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        print_row("in all", sum);
        if self.wrong > 0 {
            println!("\n{} counts were WRONG, see above.", self.wrong);
            return ExitCode::FAILURE;
        }
        println!("\nEvery count is exact.");
        ExitCode::SUCCESS
    }
}

const LOGGED_OUT: &str = "logged out";

async fn get(client: ClientWithMiddleware, url: String) -> Result<u16, String> {
    match client.get(url).timeout(Duration::from_secs(10)).send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => match reqwest_reauth::Error::find(&error) {
            Some(error) if error.is_logged_out() => Err(LOGGED_OUT.to_owned()),
            _ => Err(error.to_string()),
        },
    }
}

/// What the server gave out, as a token response of RFC 6749 §5.1.
fn tokens(issued: &Issued) -> Result<TokenResponse, reqwest_reauth::Error> {
    TokenResponse::from_json(issued.json().as_bytes())
}

fn told(status: &Result<u16, String>) -> String {
    status.as_ref().map_or_else(Clone::clone, u16::to_string)
}

fn print_row(what: &str, [requests, refreshes, reuses, failures]: [u64; 4]) {
    println!("   {what:<28} {requests:>8}  {refreshes:>9}  {reuses:>6}  {failures:>8}");
}
