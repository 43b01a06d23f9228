"""A client that knows the standards and nothing of tokend: Authlib as it comes from PyPI.

Takes the issuer's URL as its argument, and an access and a refresh token of one session on standard input, a line
each. Ends with 0 if it could verify, introspect and revoke the access token by what the issuer's metadata says alone,
and was told that the refresh token is no access token.
"""

import sys

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc import jwt
from joserfc.jwk import KeySet

issuer = sys.argv[1]
token, refresh = sys.stdin.read().split()

http = requests.Session()
http.trust_env = False  # no proxies: the service is on this machine
response = http.get(get_well_known_url(issuer, external=True, suffix="oauth-authorization-server"), timeout=30)
metadata = AuthorizationServerMetadata(response.raise_for_status() or response.json())
# All of RFC 8414 but for what belongs to grants: this service has no token endpoint, and Authlib takes an empty
# list of response types for a missing one.
for check in ("issuer", "jwks_uri", "grant_types_supported", "service_documentation",
              "revocation_endpoint", "revocation_endpoint_auth_methods_supported",
              "introspection_endpoint", "introspection_endpoint_auth_methods_supported"):
    getattr(metadata, f"validate_{check}")()
assert metadata["issuer"] == issuer, metadata["issuer"]

keys = KeySet.import_key_set(http.get(metadata["jwks_uri"], timeout=30).json())
verified = jwt.decode(token, keys, algorithms=["ES256", "EdDSA", "Ed25519"])
claims = verified.claims
jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": issuer},
    aud={"essential": True, "value": "tokend"},
    sub={"essential": True}, exp={"essential": True}, iat={"essential": True}, jti={"essential": True},
).validate(claims)

client = OAuth2Session("a-resource-server", token_endpoint_auth_method="none")
client.trust_env = False


def introspect(token, hint=None):
    endpoint = metadata["introspection_endpoint"]
    answer = client.introspect_token(endpoint, token=token, token_type_hint=hint, timeout=30)
    answer.raise_for_status()
    return answer.json()


told = introspect(token)
assert told["active"] is True, told
for claim in ("iss", "aud", "sub", "exp", "iat", "jti"):
    assert told[claim] == claims[claim], (claim, told)
assert introspect(refresh) == {"active": False}
assert introspect(refresh, "access_token") == {"active": False}
assert introspect(refresh, "refresh_token")["active"] is True
client.revoke_token(metadata["revocation_endpoint"], token=token, timeout=30).raise_for_status()
assert introspect(token) == {"active": False}
assert introspect(refresh, "refresh_token") == {"active": False}
