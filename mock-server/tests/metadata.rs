//! What the server says of itself.

mod support;

use mock_server::{Metadata, MockServer, ResponseIss};
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
