//! What all requests to an authorization server have in common.

use std::sync::OnceLock;

use reqwest::{Client, Response, Url};
use zeroize::Zeroizing;

use crate::endpoint::RefreshError;
use crate::refresh::client;

/// The client for a request to `url`.
pub(crate) fn client_for(http: &Client, url: &Url) -> Result<Client, RefreshError> {
    match (url.scheme(), DIRECT.get()) {
        ("https", _) => Ok(http.clone()),
        (_, Some(direct)) => Ok(direct.clone()),
        (_, None) => {
            let direct = client(Client::builder().no_proxy()).build()?;
            Ok(DIRECT.get_or_init(|| direct).clone())
        }
    }
}

/// Plain http is for this machine: through a proxy the token would leave it. Made once, as that
/// takes longer than the request; it keeps no connection, and so belongs to no runtime.
static DIRECT: OnceLock<Client> = OnceLock::new();

/// The body of an answer of `what`.
pub(crate) async fn whole_body(
    what: &str,
    mut response: Response,
) -> Result<Zeroizing<Vec<u8>>, RefreshError> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    while let Some(chunk) = response.chunk().await.map_err(|e| RefreshError::of(what, e))? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(RefreshError::unexpected(
                "the authorization server's answer is over 1 MiB",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Real token responses reach 10 KB; a server that sends more than this is no token endpoint.
const BODY_MAX: usize = 1024 * 1024;

/// One allocation for most answers, so that no half-read copy is left behind unwiped.
const BODY_ROOM: usize = 16 * 1024;
