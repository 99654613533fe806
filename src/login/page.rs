//! What the person sees in the browser when the login is through.

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

/// Nothing in it comes from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    LoggedIn,
    Denied,
    Failed,
    /// It answers a login that isn't the one under way.
    Stale,
    NotFound,
}

impl Page {
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let (status, title, text) = match self {
            Self::LoggedIn => (StatusCode::OK, "You are logged in", CLOSE),
            Self::Denied => (StatusCode::OK, "You are not logged in", DENIED),
            Self::Failed => (StatusCode::BAD_REQUEST, "The login failed", FAILED),
            Self::Stale => (StatusCode::BAD_REQUEST, "This is not the login under way", STALE),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is nothing here", CLOSE),
        };
        let html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{text}</p>\n\
             </main>\n</body>\n</html>\n"
        );
        let mut response = Response::new(Full::from(html));
        *response.status_mut() = status;
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
            // The address of this page holds the code.
            (REFERRER_POLICY, "no-referrer"),
        ];
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

const CLOSE: &str = "You can close this window.";
const DENIED: &str = "The login was refused. You can close this window.";
const FAILED: &str = "The program says why. You can close this window.";
const STALE: &str = "It belongs to an earlier try. You can close this window.";
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;font:1.1rem/1.5 system-ui,sans-serif}\
main{padding:2rem;text-align:center}h1{font-size:1.6rem;margin:0 0 .5rem}p{margin:0}";
