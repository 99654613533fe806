//! What a login or a refresh issues.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::config::{Config, ExpiresIn};
use crate::family::{FamilyId, Step};

/// The tokens that a login issued.
///
/// Its `Debug` does not show them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The access token.
    pub access_token: String,
    /// The refresh token.
    pub refresh_token: String,
    /// The `expires_in` of the response, if it has one that is a whole number.
    pub expires_in: Option<u64>,
    /// The family that began with the login.
    pub family: FamilyId,
    /// How many refreshes lie between the login and these tokens; 0 at login.
    pub generation: u64,
    said: Option<Value>,
    refresh_expires_in: Option<u64>,
    refresh_token_said: bool,
}

impl Issued {
    pub(crate) fn new(
        config: &Config,
        family: FamilyId,
        generation: u64,
        step: &Step,
        now: Instant,
    ) -> Self {
        let said = match &config.expires_in {
            ExpiresIn::Truthful => Some(seconds_left(step.access_until, now).into()),
            ExpiresIn::Absent => None,
            ExpiresIn::Value(value) => Some(value.clone()),
        };
        Self {
            access_token: step.access.clone(),
            refresh_token: step.refresh.clone(),
            expires_in: said.as_ref().and_then(Value::as_u64),
            family,
            generation,
            said,
            refresh_expires_in: config
                .refresh_expires_in
                .then(|| seconds_left(step.refresh_until, now)),
            refresh_token_said: config.rotation || generation == 0,
        }
    }

    /// The body of the token response that issues these tokens (RFC 6749 §5.1).
    pub fn json(&self) -> String {
        let mut body = Map::new();
        body.insert("access_token".into(), json!(self.access_token));
        body.insert("token_type".into(), json!("Bearer"));
        if let Some(said) = &self.said {
            body.insert("expires_in".into(), said.clone());
        }
        if self.refresh_token_said {
            body.insert("refresh_token".into(), json!(self.refresh_token));
        }
        if let Some(seconds) = self.refresh_expires_in {
            body.insert("refresh_expires_in".into(), json!(seconds));
        }
        Value::Object(body).to_string()
    }

    /// The same in the style of `/login` and `/refresh-token`.
    pub(crate) fn camel_json(&self) -> Value {
        let mut body = Map::new();
        body.insert("accessToken".into(), json!(self.access_token));
        if self.refresh_token_said {
            body.insert("refreshToken".into(), json!(self.refresh_token));
        }
        if let Some(said) = &self.said {
            body.insert("expiresIn".into(), said.clone());
        }
        if let Some(seconds) = self.refresh_expires_in {
            body.insert("refreshExpiresIn".into(), json!(seconds));
        }
        Value::Object(body)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("access_token", &"[redacted]")
            .field("refresh_token", &"[redacted]")
            .field("expires_in", &self.expires_in)
            .field("family", &self.family)
            .field("generation", &self.generation)
            .finish()
    }
}

fn seconds_left(until: Instant, now: Instant) -> u64 {
    let left = until.saturating_duration_since(now);
    left.as_secs() + u64::from(left > Duration::from_secs(left.as_secs()))
}
