//! The end of a program: on Ctrl-C, and at the end of `main`.
//!
//! Calls an API once a second until Ctrl-C, keeping the login in a file. In one terminal
//! `cargo run -p mock-server`, in another `cargo run --example ctrl_c`; stop it whenever you like
//! and start it again: it stays logged in.
//!
//! Arguments, all optional: the server's origin, the file, how many calls to make.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use reqwest_middleware::ClientBuilder;
use reqwest_reauth::{FileStore, OAuth2Endpoint, Session, TokenResponse, redirect_policy};

#[tokio::main]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(give_up)
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let origin = args.next().unwrap_or_else(|| "http://127.0.0.1:8011".to_owned());
    let file = args.next().unwrap_or_else(|| "target/ctrl_c/tokens.json".to_owned());
    let calls = match args.next() {
        None => u64::MAX,
        Some(calls) => calls.parse().map_err(|_| format!("{calls:?} is no number of calls"))?,
    };

    let endpoint = OAuth2Endpoint::new(format!("{origin}/token"), "ctrl-c");
    let session =
        Session::builder("ctrl-c", endpoint).origin(&origin).store(FileStore::new(file)).build()?;
    match session.is_logged_in().await {
        Ok(true) => {}
        Err(error) if !error.is_login_required() => return Err(error.into()),
        _ => {
            session.log_in(ask_for_tokens(&origin).await?).await?;
            println!("logged in");
        }
    }

    let http = reqwest::Client::builder().redirect(redirect_policy()).build()?;
    let client = ClientBuilder::new(http).with(session.middleware()).build();
    let work = async {
        for call in 0..calls {
            if call > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let request = client.get(format!("{origin}/api/hello")).timeout(Duration::from_secs(5));
            println!("{}", request.send().await?.status());
        }
        Ok::<_, Box<dyn Error>>(ExitCode::SUCCESS)
    };
    let exit = tokio::select! {
        exit = work => exit,
        _ = tokio::signal::ctrl_c() => {
            println!("stopping");
            Ok(ExitCode::SUCCESS)
        }
    };
    let exit = exit.unwrap_or_else(give_up);
    // A refresh that was sent is waited for, so that its tokens are kept. Without this line,
    // dropping the session and the client would do it, blocking.
    session.drain().await;
    Ok(exit)
}

#[allow(clippy::needless_pass_by_value, reason = "to be passed by name")]
fn give_up(error: Box<dyn Error>) -> ExitCode {
    eprintln!("giving up: {}", chain(&*error));
    ExitCode::FAILURE
}

/// A real program would open a browser here.
async fn ask_for_tokens(origin: &str) -> Result<TokenResponse, Box<dyn Error>> {
    let form = [("grant_type", "password"), ("username", "alice"), ("password", "secret")];
    let request = reqwest::Client::new().post(format!("{origin}/token")).form(&form);
    let answer = request.send().await.map_err(|error| {
        let hint = "start the mock server in another terminal: cargo run -p mock-server";
        format!("{}; {hint}", chain(&error))
    })?;
    Ok(TokenResponse::from_json(&answer.error_for_status()?.bytes().await?)?)
}

/// An error with its causes, which it does not tell by itself.
fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
