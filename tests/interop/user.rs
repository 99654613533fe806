//! Somebody who is logged in at a server, in one program.

use std::time::Duration;

use form_urlencoded::byte_serialize;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_reauth::{MemoryStore, OAuth2Endpoint, Session, TokenResponse, TokenStore};
use serde_json::Value;
use tokio::sync::Barrier;

use crate::server::{CLIENT_ID, CLIENT_SECRET, Server};
use crate::support::Logouts;

pub struct User<S> {
    pub server: S,
    pub session: Session,
    pub client: ClientWithMiddleware,
    pub store: MemoryStore,
    pub logouts: Logouts,
    pub issued: Value,
}

impl<S: Server> User<S> {
    pub async fn log_in(server: S) -> Self {
        Self::with_secret(server, CLIENT_SECRET).await
    }

    pub async fn with_secret(server: S, secret: &str) -> Self {
        let (store, logouts) = (MemoryStore::new(), Logouts::default());
        let endpoint = OAuth2Endpoint::new(server.token_url(), CLIENT_ID)
            .client_secret(secret)
            .revocation_url(server.revocation_url());
        let session = Session::builder("interop", endpoint)
            .origin(server.origin())
            .store(store.clone())
            .on_logout(logouts.hook())
            .build()
            .unwrap();
        let issued = server.log_in().await;
        session.log_in(tokens(&issued)).await.unwrap();
        let client = ClientBuilder::new(reqwest::Client::new()).with(session.middleware()).build();
        Self { server, session, client, store, logouts, issued }
    }

    /// The same login once more, whose access token has ended by the clock.
    pub async fn let_expire(&self) {
        let ended = tokens(&self.issued).expires_in(Duration::from_millis(1));
        self.session.log_in(ended).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    /// The status of a GET at the API.
    pub async fn get(&self) -> Result<u16, reqwest_middleware::Error> {
        let request = self.client.get(self.server.api_url("things"));
        request.send().await.map(|response| response.status().as_u16())
    }

    /// The refresh token in the store.
    pub fn refresh_token(&self) -> String {
        let record = TokenStore::load(&self.store).unwrap().unwrap();
        let record: Value = serde_json::from_slice(record.as_bytes()).unwrap();
        record["refresh_token"].as_str().unwrap().to_owned()
    }
}

pub fn tokens(issued: &Value) -> TokenResponse {
    TokenResponse::from_json(issued.to_string().as_bytes()).unwrap()
}

/// A refresh without this crate: the answer's status and body.
pub async fn refresh(server: &impl Server, id: &str, secret: &str, token: &str) -> (u16, String) {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let response = reqwest::Client::new()
        .post(server.token_url())
        .basic_auth(encode(id), Some(encode(secret)))
        .form(&[("grant_type", "refresh_token"), ("refresh_token", token)])
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Inside the session's middleware: nobody sees a 401 until as many as the barrier takes have one.
pub struct Together(pub Barrier);

#[async_trait::async_trait]
impl Middleware for Together {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let response = next.run(request, extensions).await?;
        if response.status() == 401 {
            self.0.wait().await;
        }
        Ok(response)
    }
}
