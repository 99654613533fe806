//! What all requests to an authorization server have in common.

use reqwest::{Client, Response, Url};
use zeroize::Zeroizing;

use crate::endpoint::RefreshError;
use crate::refresh::client;

/// The client for a request to `url`.
pub(crate) fn client_for(http: &Client, url: &Url) -> Result<Client, RefreshError> {
    match url.scheme() {
        "https" => Ok(http.clone()),
        // Plain http is for this machine: through a proxy the token would leave it.
        _ => Ok(client(Client::builder().no_proxy()).build()?),
    }
}

pub(crate) async fn whole_body(mut response: Response) -> Result<Zeroizing<Vec<u8>>, RefreshError> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    while let Some(chunk) = response.chunk().await? {
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
