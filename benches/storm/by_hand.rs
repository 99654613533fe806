//! A token behind a `tokio::sync::Mutex`, as people write it: who is refused takes the lock, looks
//! whether somebody has refreshed meanwhile, and else refreshes, with everybody waiting.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

#[derive(Clone, Deserialize, Serialize)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
    /// In seconds, where the server says it.
    pub lifetime: Option<u64>,
}

pub struct MutexByHand {
    http: reqwest::Client,
    token_url: String,
    /// Where the next start of the program finds its tokens.
    file: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    tokens: Tokens,
    ends: Option<Instant>,
}

impl MutexByHand {
    pub fn new(token_url: String, file: PathBuf, tokens: Tokens) -> Self {
        let held = Mutex::new(Held::new(tokens));
        Self { http: reqwest::Client::new(), token_url, file, held }
    }

    /// A token other than `refused`, and not over by the clock.
    async fn token(&self, refused: Option<&str>) -> Result<String> {
        let mut held = self.held.lock().await;
        let is_over = held.ends.is_some_and(|ends| ends <= Instant::now());
        if is_over || refused == Some(&held.tokens.access) {
            let tokens = self.refresh(&held.tokens.refresh).await?;
            fs::write(&self.file, &tokens.refresh).map_err(Error::middleware)?;
            *held = Held::new(tokens);
        }
        Ok(held.tokens.access.clone())
    }

    async fn refresh(&self, token: &str) -> Result<Tokens> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let answer =
            self.http.post(&self.token_url).form(&form).send().await?.error_for_status()?;
        let answer: Answer = answer.json().await?;
        Ok(Tokens {
            access: answer.access_token,
            refresh: answer.refresh_token,
            lifetime: answer.expires_in,
        })
    }
}

impl Held {
    fn new(tokens: Tokens) -> Self {
        let lifetime = tokens.lifetime.map(Duration::from_secs);
        Self { tokens, ends: lifetime.map(|lifetime| Instant::now() + lifetime) }
    }
}

#[async_trait::async_trait]
impl Middleware for MutexByHand {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        let token = self.token(None).await?;
        attach(&mut request, &token);
        let response = next.clone().run(request, extensions).await?;
        match spare {
            Some(mut again) if response.status() == StatusCode::UNAUTHORIZED => {
                attach(&mut again, &self.token(Some(&token)).await?);
                next.run(again, extensions).await
            }
            _ => Ok(response),
        }
    }
}

fn attach(request: &mut Request, token: &str) {
    let header = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert(AUTHORIZATION, header);
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    refresh_token: String,
    expires_in: Option<u64>,
}
