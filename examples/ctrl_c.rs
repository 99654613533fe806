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
use reqwest_reauth::{FileStore, OAuth2Endpoint, Session, TokenResponse};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let origin = args.next().unwrap_or_else(|| "http://127.0.0.1:8011".to_owned());
    let file = args.next().unwrap_or_else(|| "target/ctrl_c/tokens.json".to_owned());
    let calls = args.next().map_or(Ok(u64::MAX), |calls| calls.parse())?;

    let endpoint = OAuth2Endpoint::new(format!("{origin}/token"), "ctrl-c");
    let session =
        Session::builder("ctrl-c", endpoint).origin(&origin).store(FileStore::new(file)).build()?;
    if !session.is_logged_in().await? {
        session.log_in(ask_for_tokens(&origin).await?).await?;
        println!("logged in");
    }

    let client = ClientBuilder::new(reqwest::Client::new()).with(session.middleware()).build();
    let work = async {
        for call in 0..calls {
            if call > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let request = client.get(format!("{origin}/api/hello")).timeout(Duration::from_secs(5));
            println!("{}", request.send().await?.status());
        }
        Ok::<_, Box<dyn Error>>(())
    };
    let result = tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => {
            println!("stopping");
            Ok(())
        }
    };
    if let Err(error) = &result {
        println!("giving up: {error}");
    }
    // A refresh that was sent is waited for, so that its tokens are kept. Without this line,
    // dropping the session and the client would do it, blocking.
    session.drain().await;
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A real program would open a browser here.
async fn ask_for_tokens(origin: &str) -> Result<TokenResponse, Box<dyn Error>> {
    let form = [("grant_type", "password"), ("username", "alice"), ("password", "secret")];
    let request = reqwest::Client::new().post(format!("{origin}/token")).form(&form);
    let body = request.send().await?.error_for_status()?.bytes().await?;
    Ok(TokenResponse::from_json(&body)?)
}
