//! Whose tokens they are, by the ID token that came with them (OpenID Connect Core §2).
//!
//! It came from the token endpoint over the same connection, which stands for its signature
//! (§3.1.3.7, rule 6), and nothing is granted by it: it tells one account from another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
}

/// Issuer and subject, which together are one person's for ever. `None` for what is no ID token.
pub(super) fn subject(id_token: &str) -> Option<String> {
    let payload = id_token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let Claims { iss, sub } = serde_json::from_slice(&claims).ok()?;
    Some(format!("{iss} {sub}"))
}

/// Whether `now` names another person than `before`, at the same issuer. Two names that a program
/// gave itself ([`TokenResponse::subject`](crate::TokenResponse::subject)) may be of one person, and
/// so may those of an issuer that has moved: only what has the form of issuer and subject counts.
pub(super) fn is_of_another(before: &str, now: &str) -> bool {
    match (before.split_once(' '), now.split_once(' ')) {
        (Some((issuer, person)), Some((the_same, other))) => {
            issuer.contains("://") && issuer == the_same && person != other
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_person_is_one_at_the_same_issuer() {
        assert!(!is_of_another("ann lee", "ann smith"));
        let alice = "https://id.example.com alice";
        for (now, is_another) in [
            (alice, false),
            ("https://id.example.com bob", true),
            ("https://id.example.com alice b", true),
            ("https://moved.example.com bob", false),
            ("bob", false),
            ("alice adams", false),
        ] {
            assert_eq!(is_of_another(alice, now), is_another, "{now}");
            assert_eq!(is_of_another(now, alice), is_another, "{now}");
        }
    }

    #[test]
    fn issuer_and_subject_are_read_and_nothing_else_is_one() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let both = token(r#"{"sub":"alice?","iss":"https://id.example.com","aud":["c"]}"#);
        assert_eq!(subject(&both).as_deref(), Some("https://id.example.com alice?"));
        let none = [
            String::new(),
            "opaque".to_owned(),
            "e30.!.".to_owned(),
            token("{"),
            token("{}"),
            token(r#"{"sub":"alice"}"#),
            token(r#"{"sub":1,"iss":"https://id.example.com"}"#),
        ];
        for token in none {
            assert_eq!(subject(&token), None, "{token}");
        }
    }
}
