//! A program that calls the API, one request after the other, until it is told or killed.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Response;
use reqwest_middleware::ClientBuilder;
use reqwest_reauth::{Error, Event, Events, FileStore, OAuth2Endpoint, Session, TokenResponse};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::said::{Order, Said};
use super::steps::Steps;

/// What all workers of a run share, and the name of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    pub origin: String,
    pub service: String,
    pub directory: PathBuf,
    pub in_keychain: bool,
    pub lock_wait: Duration,
    pub reuse_grace: Option<Duration>,
}

impl Setting {
    fn session(&self) -> Session {
        let mut endpoint = OAuth2Endpoint::new(format!("{}/token", self.origin), "campaign")
            .revocation_url(format!("{}/revoke", self.origin))
            // So that the server knows who has sent a refresh token.
            .header("user-agent", &self.name);
        if let Some(grace) = self.reuse_grace {
            endpoint = endpoint.reuse_grace(grace);
        }
        let mut builder = Session::builder(&self.service, endpoint)
            .origin(&self.origin)
            .state_dir(self.directory.join("state"))
            .lock_wait(self.lock_wait)
            // Here tokens do end as soon as they are issued.
            .min_refresh_interval(Duration::from_millis(100))
            .on_logout(|why| Said::Ended(format!("{why:?}")).say());
        if !self.in_keychain {
            builder = builder.store(FileStore::new(self.directory.join("tokens.json")));
        }
        builder.build().unwrap()
    }
}

#[tokio::main(worker_threads = 1)]
pub async fn run(setting: &str) -> ExitCode {
    let setting: Setting = serde_json::from_str(setting).unwrap();
    let mut orders = orders(Steps::watch());
    let session = setting.session();
    tokio::spawn(watch(session.events()));
    let calls = tokio::spawn(call(setting, session.clone()));
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => carry_out(order, &session).await,
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    calls.abort();
    session.drain().await;
    Said::Bye.say();
    ExitCode::SUCCESS
}

/// What the driver wants. Where to stop is heard at once, also while something is carried out.
fn orders(steps: Steps) -> mpsc::UnboundedReceiver<Order> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match serde_json::from_str(&line.unwrap()).unwrap() {
                Order::StopAt(step) => steps.stop_at(Some(step)),
                Order::GoOn => steps.stop_at(None),
                order => sender.send(order).unwrap_or_default(),
            }
        }
        steps.stop_at(None);
    });
    receiver
}

async fn carry_out(order: Order, session: &Session) {
    let said = match order {
        Order::LogIn(json) => {
            let tokens = TokenResponse::from_json(json.as_bytes()).unwrap();
            match session.log_in(tokens).await {
                Ok(()) => Said::LoginDone,
                Err(error) => Said::LoginFailed(chain(&error)),
            }
        }
        Order::LogOut => match session.log_out().await {
            Ok(revocation) => Said::LogoutDone(format!("{revocation:?}")),
            Err(error) => Said::LogoutFailed(chain(&error)),
        },
        Order::StopAt(_) | Order::GoOn => unreachable!("heard by the thread"),
    };
    said.say();
}

async fn watch(mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::PersistFailed(_) => Said::PersistFailed.say(),
            Event::Persisted => Said::Persisted.say(),
            _ => {}
        }
    }
}

/// One request after the other.
async fn call(setting: Setting, session: Session) {
    let client = ClientBuilder::new(reqwest::Client::new()).with(session.middleware()).build();
    for number in 1.. {
        Said::Begins(number).say();
        // Named, so that the server tells the sends of one request from those of another.
        let url = format!("{}/api/things?request={}-{number}", setting.origin, setting.name);
        outcome(number, client.get(url).send().await).await.say();
        // A person's pace, for a machine that has other programs to run.
        tokio::time::sleep(PAUSE).await;
    }
}

async fn outcome(number: u64, result: reqwest_middleware::Result<Response>) -> Said {
    let error = match result {
        Ok(response) if response.status() == 200 => {
            let body = response.json::<serde_json::Value>().await;
            let user = body.ok().and_then(|body| body["user"].as_str().map(str::to_owned));
            return match user {
                Some(user) => Said::Ok(number, user),
                None => Said::Failed(number, "an answer without a user".to_owned()),
            };
        }
        Ok(response) => return Said::Status(number, response.status().as_u16()),
        Err(error) => error,
    };
    match Error::find(&error) {
        Some(e) if e.is_logged_out() => {
            let reason = e.logout_reason().map(|why| format!("{why:?}"));
            Said::LoggedOut(number, reason.unwrap_or_else(|| "nobody".to_owned()))
        }
        Some(e) if e.is_transient() => Said::Transient(number, chain(e)),
        _ => Said::Failed(number, chain(&error)),
    }
}

/// The error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

const PAUSE: Duration = Duration::from_millis(40);
