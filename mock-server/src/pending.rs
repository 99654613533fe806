//! Logins that a person has not finished, or whose tokens have not been fetched.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::family::FamilyId;
use crate::grant::random;

#[derive(Default)]
pub(crate) struct Pending {
    codes: Vec<Code>,
    devices: Vec<Device>,
}

/// What an authorization code was issued for (RFC 6749 §4.1, RFC 7636).
pub(crate) struct Code {
    code: String,
    pub(crate) user: String,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: String,
    until: Instant,
    /// What it was exchanged for.
    pub(crate) spent: Option<FamilyId>,
}

impl Code {
    pub(crate) fn is_over_at(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// RFC 7636 §4.6, for S256.
    pub(crate) fn proves(&self, verifier: &str) -> bool {
        URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == self.challenge
    }
}

/// A login on another device (RFC 8628).
pub(crate) struct Device {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) until: Instant,
    pub(crate) decision: Option<Decision>,
    interval: Duration,
    last_poll: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed(String),
    Denied,
}

/// What a look at a device login tells (RFC 8628 §3.5).
pub(crate) enum Poll {
    Unknown,
    Pending,
    SlowDown,
    Expired,
    Denied,
    Allowed(String),
}

impl Pending {
    pub(crate) fn issue_code(
        &mut self,
        user: &str,
        client_id: &str,
        redirect_uri: &str,
        challenge: &str,
        now: Instant,
    ) -> String {
        let code = random("code");
        self.codes.push(Code {
            code: code.clone(),
            user: user.to_owned(),
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            until: now + CODE_TTL,
            spent: None,
        });
        code
    }

    pub(crate) fn code(&mut self, code: &str) -> Option<&mut Code> {
        self.codes.iter_mut().find(|issued| issued.code == code)
    }

    pub(crate) fn begin_device(
        &mut self,
        ttl: Duration,
        interval: Duration,
        now: Instant,
    ) -> &Device {
        self.devices.push(Device {
            device_code: random("device"),
            user_code: user_code(),
            until: now + ttl,
            decision: None,
            interval,
            last_poll: None,
        });
        &self.devices[self.devices.len() - 1]
    }

    /// Decides what the person with that code is asked for: once, and in time.
    pub(crate) fn decide(&mut self, user_code: &str, decision: Decision, now: Instant) -> bool {
        let wanted = letters(user_code);
        let open = |device: &&mut Device| {
            letters(&device.user_code) == wanted && device.decision.is_none() && now < device.until
        };
        match self.devices.iter_mut().find(open) {
            Some(device) => {
                device.decision = Some(decision);
                true
            }
            None => false,
        }
    }

    pub(crate) fn poll_device(&mut self, device_code: &str, now: Instant) -> Poll {
        let Some(at) = self.devices.iter().position(|it| it.device_code == device_code) else {
            return Poll::Unknown;
        };
        let device = &mut self.devices[at];
        let too_soon = device.last_poll.is_some_and(|last| now - last < device.interval);
        device.last_poll = Some(now);
        match &device.decision {
            _ if now >= device.until => Poll::Expired,
            _ if too_soon => {
                device.interval += SLOWER;
                Poll::SlowDown
            }
            None => Poll::Pending,
            Some(Decision::Denied) => Poll::Denied,
            Some(Decision::Allowed(user)) => {
                let user = user.clone();
                self.devices.remove(at);
                Poll::Allowed(user)
            }
        }
    }

    pub(crate) fn user_codes(&self) -> Vec<String> {
        let open = self.devices.iter().filter(|device| device.decision.is_none());
        open.map(|device| device.user_code.clone()).collect()
    }
}

/// Without vowels, so that no code is a word (RFC 8628 §6.1).
fn user_code() -> String {
    let mut bytes = [0; 8];
    #[expect(clippy::expect_used, reason = "nothing works without")]
    getrandom::fill(&mut bytes).expect("the system has no randomness");
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    let code: String = bytes.iter().map(letter).collect();
    format!("{}-{}", &code[..4], &code[4..])
}

/// What a person may type in any form.
fn letters(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect()
}

const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// RFC 6749 §4.1.2 recommends ten minutes at most.
const CODE_TTL: Duration = Duration::from_secs(60);

/// RFC 8628 §3.5.
const SLOWER: Duration = Duration::from_secs(5);
