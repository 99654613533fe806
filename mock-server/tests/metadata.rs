//! What the server says of itself.

mod support;

use mock_server::{Fault, Metadata, MockServer, ResponseIss, Route};
use serde_json::{Value, json};
use support::read;

async fn document(server: &MockServer, name: &str) -> (u16, Value) {
    let url = format!("{}/.well-known/{name}", server.origin());
    read(reqwest::get(url).await.unwrap()).await
}

#[tokio::test]
async fn both_documents_name_the_endpoints() {
    let server = MockServer::start();
    let (status, said) = document(&server, "oauth-authorization-server").await;
    assert_eq!(status, 200);
    for (name, url) in [
        ("issuer", server.issuer()),
        ("authorization_endpoint", server.authorization_url()),
        ("token_endpoint", server.token_url()),
        ("revocation_endpoint", server.revocation_url()),
        ("device_authorization_endpoint", server.device_authorization_url()),
    ] {
        assert_eq!(said[name], json!(url));
    }
    assert_eq!(said["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(document(&server, "openid-configuration").await, (200, said));
}

#[tokio::test]
async fn each_document_can_be_missing() {
    for (metadata, oauth, oidc) in [
        (Metadata::Both, 200, 200),
        (Metadata::OAuth, 200, 404),
        (Metadata::Oidc, 404, 200),
        (Metadata::Neither, 404, 404),
    ] {
        let server = MockServer::builder().metadata(metadata).start().unwrap();
        assert_eq!(document(&server, "oauth-authorization-server").await.0, oauth);
        assert_eq!(document(&server, "openid-configuration").await.0, oidc);
    }
}

#[tokio::test]
async fn an_answer_without_issuer_is_announced_unless_it_is_to_be_a_surprise() {
    for (iss, announced) in
        [(ResponseIss::Right, true), (ResponseIss::Absent, false), (ResponseIss::Missing, true)]
    {
        let server = MockServer::builder().response_iss(iss).start().unwrap();
        let (_, said) = document(&server, "oauth-authorization-server").await;
        assert_eq!(said["authorization_response_iss_parameter_supported"], announced);
    }
}

#[tokio::test]
async fn only_what_the_client_can_do_is_announced() {
    let secret = json!(["client_secret_basic", "client_secret_post"]);
    for (client, methods) in [(None, json!(["none"])), (Some("hush"), secret)] {
        let server = MockServer::builder().client("app", client).start().unwrap();
        let (_, said) = document(&server, "oauth-authorization-server").await;
        assert_eq!(said["token_endpoint_auth_methods_supported"], methods);
        assert_eq!(said["revocation_endpoint_auth_methods_supported"], methods);
    }
}

#[tokio::test]
async fn the_documents_can_be_broken_and_are_recorded() {
    let server = MockServer::start();
    server.on_next(Route::Metadata, 1, Fault::status(503));
    assert_eq!(document(&server, "openid-configuration").await.0, 503);
    assert_eq!(document(&server, "openid-configuration").await.0, 200);
    assert_eq!(server.requests(Route::Metadata).len(), 2);
}
