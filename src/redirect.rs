//! How a client follows redirects without giving the token away.

use reqwest::Url;
use reqwest::redirect::{Attempt, Policy};

/// Follows redirects as long as the token stays with the origin that it was sent to.
///
/// reqwest by itself takes a request's `Authorization` off where a redirect leads to another
/// origin (scheme, host, port), but begins each further redirect with the request's first headers
/// again: where that other origin redirects within itself, it gets the token. A middleware can't
/// change that; a client can be built so that it doesn't happen:
///
/// ```
/// # fn build(session: reqwest_reauth::Session) -> reqwest::Result<()> {
/// use reqwest_middleware::ClientBuilder;
/// use reqwest_reauth::redirect_policy;
///
/// let http = reqwest::Client::builder().redirect(redirect_policy()).build()?;
/// let client = ClientBuilder::new(http).with(session.middleware()).build();
/// # Ok(())
/// # }
/// ```
///
/// - Within the first URL's origin, redirects are followed with the token, and back to it without.
/// - To another origin they are followed without it (RFC 9110 §15.4).
/// - Where one leads from another origin to that same one, nothing is sent, and the request fails
///   with an error for which [`reqwest::Error::is_redirect`] is true. Its
///   [`url`](reqwest::Error::url) is the one that has redirected there: a request of its own to
///   that URL goes without the token, unless the session lists the origin.
/// - After 10 redirects the next one fails, as it does by default.
///
/// What a request carries, a policy isn't told: one without the token fails in the same way.
/// The body and the other headers go along on a redirect as they do by default.
pub fn redirect_policy() -> Policy {
    Policy::custom(|attempt: Attempt<'_>| {
        match token_would_go(attempt.url(), attempt.previous()) {
            Some(error) => attempt.error(error),
            // Counts the redirects.
            None => Policy::default().redirect(attempt),
        }
    })
}

/// Why `next` must not be asked. reqwest takes the token off only where the last URL's origin is
/// another one; so it goes along where that is the same, which is fine for the first one alone.
fn token_would_go(next: &Url, previous: &[Url]) -> Option<String> {
    let (first, last) = (previous.first()?.origin(), previous.last()?.origin());
    let next = next.origin();
    (next == last && next != first).then(|| {
        format!(
            "a redirect from {} has led to {}, which redirects within itself: reqwest would send \
             the token along; ask for this error's URL in a request of its own",
            first.ascii_serialization(),
            next.ascii_serialization()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_within_an_origin_that_is_not_the_first_is_refused_wherever_it_comes() {
        let (a, b, c) = ("https://a.example/1", "https://b.example/1", "https://c.example/1");
        let (a2, b2, c2) = ("https://a.example/2", "https://b.example/2", "https://c.example/2");
        for (urls, refused) in [
            (&[a, a2][..], false),
            (&[a, a2, a], false),
            (&[a, b], false),
            (&[a, a2, b], false),
            (&[a, b, b2], true),
            (&[a, a2, b, b2], true),
            (&[a, b, c], false),
            (&[a, b, c, c2], true),
            (&[a, b, c, b2], false),
            (&[a, b, a], false),
            (&[a, b, a, a2], false),
            (&[a, b, a, b], false),
            (&[a, b, a, b, b2], true),
            // Another scheme or port is another origin, whatever the host's name.
            (&[a, "http://a.example/1"], false),
            (&[a, "http://a.example/1", "http://a.example/2"], true),
            (&[a, "http://a.example/1", a2], false),
            (&[a, "https://a.example:8443/1", "https://a.example:8443/2"], true),
            // What is written in another way is not.
            (&[a, "https://me@A.example:443/2"], false),
            (&[a, b, "https://me@B.example:443/2"], true),
            (&[a, b, "https://b.example./2"], false),
            // reqwest itself refuses these.
            (&[a, "data:,x", "data:,x"], false),
        ] {
            let urls: Vec<_> = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
            let (next, previous) = urls.split_last().unwrap();
            let error = token_would_go(next, previous);
            assert_eq!(error.is_some(), refused, "{urls:?}");
        }
    }

    #[test]
    fn the_error_names_the_origins_and_nothing_else_of_the_urls() {
        let urls = ["https://u:secret@a.example/secret", "https://b.example:8443/?secret#secret"];
        let urls = urls.map(|url| Url::parse(url).unwrap());
        let error = token_would_go(&urls[1], &urls).unwrap();
        assert!(!error.contains("secret"), "{error}");
        assert!(error.contains("from https://a.example has"), "{error}");
        assert!(error.contains("to https://b.example:8443, "), "{error}");
    }
}
