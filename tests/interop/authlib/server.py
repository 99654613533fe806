"""An authorization server of Authlib and Flask, with a protected API, and controls for tests.

    python server.py --client-id ID --client-secret SECRET [--port N] [--ttl SECONDS]
                     [--says SECONDS] [--no-rotation] [--store FILE]

Prints its origin on the first line. --says is the expires_in of token responses, where it is to
differ from the lifetime; with 0 they have none. With --store, tokens are in that file before any
answer that depends on them: a process that is killed goes on from there at its next start.
"""

import argparse
import json
import logging
import os
import threading
import time

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

parser = argparse.ArgumentParser()
parser.add_argument("--client-id", required=True)
parser.add_argument("--client-secret", required=True)
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--ttl", type=int, default=300)
parser.add_argument("--says", type=int)
parser.add_argument("--no-rotation", dest="rotation", action="store_false")
parser.add_argument("--store")
args = parser.parse_args()

# One request at a time: Authlib leaves it to its user that a token is spent once.
lock = threading.RLock()
counters = {"token_requests": 0, "refreshes": 0, "reuses": 0, "api_ok": 0, "api_unauthorized": 0}
# A row for each token response; `grant` is the login it goes back to.
tokens = []
if args.store and os.path.exists(args.store):
    with open(args.store, encoding="utf-8") as file:
        tokens = json.load(file)


def save():
    if not args.store:
        return
    with open(args.store + ".new", "w", encoding="utf-8") as file:
        json.dump(tokens, file)
    os.replace(args.store + ".new", args.store)


class Client(ClientMixin):
    client_id = args.client_id

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return scope

    def check_client_secret(self, client_secret):
        return client_secret == args.client_secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "refresh_token"


class Token(TokenMixin):
    def __init__(self, row):
        self.row = row

    def check_client(self, client):
        return self.row["client_id"] == client.get_client_id()

    def get_scope(self):
        return ""

    def is_expired(self):
        return self.row["until"] <= time.time()

    def is_revoked(self):
        return self.row["access_revoked"]

    def revoke_grant(self):
        for row in tokens:
            if row["grant"] == self.row["grant"]:
                row.update(access_revoked=True, refresh_revoked=True)
        save()


def find(kind, value):
    return next((Token(row) for row in tokens if row[kind] == value), None)


class RefreshTokenGrant(grants.RefreshTokenGrant):
    INCLUDE_NEW_REFRESH_TOKEN = args.rotation
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

    def authenticate_refresh_token(self, refresh_token):
        token = find("refresh_token", refresh_token)
        if not token or token.row["refresh_revoked"]:
            return None
        if token.row["spent"]:
            # RFC 9700 §4.14.2; Authlib leaves this to its user.
            counters["reuses"] += 1
            token.revoke_grant()
            return None
        return token

    def authenticate_user(self, refresh_token):
        return refresh_token.row["grant"]

    def revoke_old_credential(self, refresh_token):
        if args.rotation:
            refresh_token.row["spent"] = True
            save()


class Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = ["client_secret_basic"]

    def query_token(self, token_string, token_type_hint):
        return find("refresh_token", token_string) or find("access_token", token_string)

    def revoke_token(self, token, request):
        token.revoke_grant()


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string):
        return find("access_token", token_string)


def save_token(response, grant):
    tokens.append(
        {
            "grant": grant,
            "client_id": args.client_id,
            "access_token": response["access_token"],
            "refresh_token": response.get("refresh_token"),
            "until": time.time() + args.ttl,
            "access_revoked": False,
            "refresh_revoked": False,
            "spent": False,
        }
    )
    save()


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
says = args.ttl if args.says is None else args.says
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"refresh_token": says}
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client() if client_id == args.client_id else None,
    save_token=lambda response, request: save_token(response, request.user),
)
server.register_grant(RefreshTokenGrant)
server.register_endpoint(Revocation)
protected = ResourceProtector()
protected.register_token_validator(Validator())


@app.post("/token")
def token():
    with lock:
        counters["token_requests"] += 1
        response = server.create_token_response()
        counters["refreshes"] += response.status_code == 200
        return response


@app.post("/revoke")
def revoke():
    with lock:
        return server.create_endpoint_response("revocation")


@app.route("/api/<path:_path>")
@protected()
def api(_path):
    return jsonify(user=current_token.row["grant"])


@app.after_request
def count(response):
    if request.path.startswith("/api/"):
        with lock:
            counters["api_ok"] += response.status_code == 200
            counters["api_unauthorized"] += response.status_code == 401
    return response


@app.post("/control/login")
def log_in():
    with lock:
        response = server.generate_token("refresh_token", Client())
        save_token(response, f"alice/{len(tokens)}")
        return jsonify(response)


@app.post("/control/expire-access-tokens")
def expire_access_tokens():
    with lock:
        for row in tokens:
            row["until"] = 0
        save()
    return "", 204


@app.post("/control/revoke")
def revoke_all():
    with lock:
        for row in tokens:
            row.update(access_revoked=True, refresh_revoked=True)
        save()
    return "", 204


@app.get("/control/state")
def state():
    with lock:
        alive = {row["grant"] for row in tokens if not row["refresh_revoked"]}
        return jsonify(**counters, grants=len(alive))


logging.getLogger("werkzeug").setLevel(logging.ERROR)
listener = make_server("127.0.0.1", args.port, app, threaded=True)
print(f"http://127.0.0.1:{listener.server_port}", flush=True)
listener.serve_forever()
