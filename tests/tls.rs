//! A token endpoint behind a certificate that only the program knows, as companies have them.

mod support;

use std::sync::Arc;

use mock_server::MockServer;
use reqwest_reauth::{MemoryStore, OAuth2Endpoint, Session, SessionBuilder};
use support::{client, found, soon, tokens};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// TLS in front of a mock server.
struct Company {
    server: MockServer,
    token_url: String,
    certificate: reqwest::Certificate,
}

impl Company {
    async fn new() -> Self {
        let server = MockServer::start();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = reqwest::Certificate::from_der(own.cert.der()).unwrap();
        let key = own.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token_url =
            format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let behind = server.origin().trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that doesn't trust us goes away.
                    let Ok(mut tls) = acceptor.accept(stream).await else { return };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self { server, token_url, certificate }
    }

    /// A session whose token the API refuses.
    async fn session(&self, set: impl FnOnce(SessionBuilder) -> SessionBuilder) -> Session {
        let endpoint = OAuth2Endpoint::new(&self.token_url, "test");
        let builder = Session::builder("test", endpoint).origin(self.server.origin());
        let session = set(builder.store(MemoryStore::new())).build().unwrap();
        session.log_in(tokens(&self.server.log_in("alice"))).await.unwrap();
        self.server.expire_access_tokens();
        session
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_told_and_nothing_is_sent() {
    let company = Company::new().await;
    let session = company.session(|builder| builder).await;
    let request = client(&session).get(company.server.api_url("things"));
    let error = soon(request.send()).await.unwrap_err();
    assert!(found(&error).is_transient() && !found(&error).is_logged_out(), "{error:?}");
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("TLS certificate is not accepted"), "{text}");
    assert!(text.contains(".token_client("), "{text}");
    assert_eq!(company.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_certificate_that_the_program_brings_is_accepted() {
    let company = Company::new().await;
    let certificate = company.certificate.clone();
    let session = company
        .session(|builder| {
            builder.token_client(move |client| client.tls_certs_merge([certificate.clone()]))
        })
        .await;
    let request = client(&session).get(company.server.api_url("things"));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    assert_eq!(company.server.counters().refreshes, 1);
}

#[tokio::test]
async fn what_the_program_sets_never_turns_redirects_on() {
    let company = Company::new().await;
    let certificate = company.certificate.clone();
    let session = company
        .session(|builder| {
            builder.token_client(move |client| {
                let followed = reqwest::redirect::Policy::limited(10);
                client.tls_certs_merge([certificate.clone()]).redirect(followed)
            })
        })
        .await;
    let elsewhere = format!("{}/elsewhere", company.server.origin());
    let redirect = mock_server::Fault::status(307).header("location", elsewhere);
    company.server.on_next(mock_server::Route::Token, 1, redirect);
    let request = client(&session).get(company.server.api_url("things"));
    let error = soon(request.send()).await.unwrap_err();
    assert!(found(&error).is_configuration(), "{error:?}");
    assert_eq!(company.server.counters().token_requests, 1);
}
