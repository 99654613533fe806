//! Authorization codes: issued by the login page, redeemed once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::family::FamilyId;
use crate::grant::random;

/// Every code that was issued. Spent ones stay, to be known when they come again.
#[derive(Default)]
pub(crate) struct Codes(HashMap<String, Code>);

/// What a code was issued for (RFC 6749 §4.1.2).
pub(crate) struct Code {
    pub(crate) user: String,
    client_id: String,
    redirect_uri: String,
    challenge: String,
    until: Instant,
    /// What it was redeemed for.
    pub(crate) spent: Option<FamilyId>,
}

impl Codes {
    pub(crate) fn issue(
        &mut self,
        user: &str,
        client_id: &str,
        redirect_uri: &str,
        challenge: &str,
        now: Instant,
    ) -> String {
        let code = Code {
            user: user.to_owned(),
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            until: now + TTL,
            spent: None,
        };
        let name = random("code_");
        self.0.insert(name.clone(), code);
        name
    }

    pub(crate) fn get_mut(&mut self, code: &str) -> Option<&mut Code> {
        self.0.get_mut(code)
    }
}

impl Code {
    /// Whether whoever asks is who the code was issued to, and in time; or why not.
    pub(crate) fn check(
        &self,
        client_id: &str,
        redirect_uri: &str,
        verifier: &str,
        now: Instant,
    ) -> Result<(), &'static str> {
        if now >= self.until {
            return Err("the code is over");
        }
        if self.client_id != client_id || self.redirect_uri != redirect_uri {
            return Err("the code is for another client or redirect_uri");
        }
        // RFC 7636 §4.1 and §4.6: a short one could be guessed, whatever its hash.
        if !VERIFIER.contains(&verifier.len()) || challenge(verifier) != self.challenge {
            return Err("the code_verifier is not the one");
        }
        Ok(())
    }
}

/// Whether this can be the S256 challenge of any verifier.
pub(crate) fn is_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == Sha256::output_size())
}

/// RFC 7636 §4.2, for S256.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Longer than a login takes, and well under the ten minutes of RFC 6749 §4.1.2.
const TTL: Duration = Duration::from_secs(60);

const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;

#[cfg(test)]
mod tests {
    use super::*;

    const ALMOST: Duration = Duration::from_millis(59_999);

    #[test]
    fn a_code_is_good_for_sixty_seconds() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        let verifier = "v".repeat(43);
        let code = codes.issue("alice", "app", "http://127.0.0.1/", &challenge(&verifier), now);
        let code = codes.get_mut(&code).unwrap();
        let check = |at| code.check("app", "http://127.0.0.1/", &verifier, at);
        assert_eq!(check(now + ALMOST), Ok(()));
        assert_eq!(check(now + TTL), Err("the code is over"));
    }

    #[test]
    fn a_verifier_has_43_to_128_characters() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        for (length, expected) in [(42, false), (43, true), (128, true), (129, false)] {
            let verifier = "v".repeat(length);
            let code = codes.issue("alice", "app", "http://[::1]/", &challenge(&verifier), now);
            let code = codes.get_mut(&code).unwrap();
            let checked = code.check("app", "http://[::1]/", &verifier, now);
            assert_eq!(checked.is_ok(), expected, "{length}");
        }
    }

    #[test]
    fn a_challenge_is_the_hash_of_rfc_7636() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_challenge(&challenge(verifier)));
        for wrong in ["", "short", &challenge(verifier)[1..], &(challenge(verifier) + "=")] {
            assert!(!is_challenge(wrong), "{wrong}");
        }
    }
}
