//! What the server says of itself (RFC 8414, OpenID Connect Discovery).

use http::{Method, StatusCode};
use serde_json::json;

use super::Received;
use crate::answer::Answer;
use crate::config::{Client, ResponseIss};
use crate::state::Shared;

/// `GET /.well-known/…`.
pub(super) fn metadata(shared: &Shared, request: &Received) -> Answer {
    if request.head.method != Method::GET {
        return Answer::method_not_allowed("GET");
    }
    let is_oidc = request.path().ends_with("/openid-configuration");
    if !shared.config.metadata.has(is_oidc) {
        return Answer::text(StatusCode::NOT_FOUND, "this server has no such metadata\n");
    }
    let issuer = shared.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    let auth_methods = auth_methods(shared.config.client.as_ref());
    let says_iss = shared.config.response_iss != ResponseIss::Absent;
    // Nothing about ID tokens and their keys, though OpenID Connect asks for it: there are none.
    let metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "revocation_endpoint": at("/revoke"),
        "device_authorization_endpoint": at("/device_authorization"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "password",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": auth_methods,
        "revocation_endpoint_auth_methods_supported": auth_methods,
        "authorization_response_iss_parameter_supported": says_iss,
    });
    Answer::json(StatusCode::OK, &metadata)
}

/// What the only client may do, or any.
fn auth_methods(client: Option<&Client>) -> &'static [&'static str] {
    match client.map(|client| &client.secret) {
        None => &["none", "client_secret_basic", "client_secret_post"],
        Some(None) => &["none"],
        Some(Some(_)) => &["client_secret_basic", "client_secret_post"],
    }
}
