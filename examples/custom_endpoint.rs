//! A server with its own `/refresh-token` route instead of OAuth's: `TokenEndpoint` in a dozen
//! lines. Run it with `cargo run --example custom_endpoint`; the mock server has such a route.

use std::time::Duration;

use async_trait::async_trait;
use mock_server::MockServer;
use reqwest::{Client, StatusCode};
use reqwest_middleware::ClientBuilder;
use reqwest_reauth::{
    MemoryStore, RefreshError, RefreshToken, Session, TokenEndpoint, TokenResponse, redirect_policy,
};
use serde::{Deserialize, Serialize};

/// `POST {"refreshToken": "…"}` → `{"accessToken": "…", "refreshToken": "…", "expiresIn": 300}`;
/// 401 if the refresh token is no longer good.
struct InHouse {
    url: String,
}

#[async_trait]
impl TokenEndpoint for InHouse {
    fn id(&self) -> String {
        self.url.clone()
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let body = Request { refresh_token: token.secret() };
        // `?` tells "never sent" from "sent, but no answer".
        let response = http.post(&self.url).json(&body).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await?;
        match status {
            StatusCode::OK => match serde_json::from_slice::<Tokens>(&body) {
                Ok(tokens) => Ok(tokens.into()),
                Err(_) => Err(RefreshError::unexpected("the answer has no tokens in it")),
            },
            // The only outcome that logs the user out: be sure that the server means it.
            StatusCode::UNAUTHORIZED => {
                Err(RefreshError::rejected("the refresh token is no longer good"))
            }
            _ => Err(RefreshError::answered(status, &headers, &body)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    refresh_token: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

impl From<Tokens> for TokenResponse {
    fn from(tokens: Tokens) -> Self {
        Self::new(tokens.access_token)
            .refresh_token(tokens.refresh_token)
            .expires_in(Duration::from_secs(tokens.expires_in))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = MockServer::start();
    let session = Session::builder("custom-endpoint", InHouse { url: server.refresh_json_url() })
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()?;

    // The login is the program's own business: here, too, a route of the server's own.
    let login =
        Client::new().post(server.login_json_url()).json(&serde_json::json!({"username": "alice"}));
    let tokens: Tokens = login.send().await?.error_for_status()?.json().await?;
    session.log_in(tokens.into()).await?;

    let http = Client::builder().redirect(redirect_policy()).build()?;
    let client = ClientBuilder::new(http).with(session.middleware()).build();
    println!(
        "with the first token: {}",
        client.get(server.api_url("hello")).send().await?.status()
    );
    server.expire_access_tokens();
    println!(
        "after it expired:     {}",
        client.get(server.api_url("hello")).send().await?.status()
    );

    let counters = server.counters();
    println!("refreshes: {}, refresh tokens used twice: {}", counters.refreshes, counters.reuses);
    if (counters.refreshes, counters.reuses, counters.api_ok) != (1, 0, 2) {
        return Err(format!("expected 1 refresh, no reuse and 2 answers: {counters:?}").into());
    }
    session.drain().await;
    Ok(())
}
