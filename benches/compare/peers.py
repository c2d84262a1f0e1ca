"""Configurations of the origin, and of nginx, haproxy and varnish for the same job as Postern's."""

from jobs import PARAMETERS, PATH, TENANTS


def origin(folder, name, ports):
    """A static page, and the number of requests so far at /count. `ports` are those for HTTP/1.1, for TLS and for HTTP/2 without TLS."""
    plain, tls, http2 = ports
    return f"""daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json; open_file_cache max=10;
  ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2; listen 127.0.0.1:{http2} http2;
    location / {{ root {folder}/www; try_files /page.json =404; }}
    location = /count {{ stub_status; }}
  }}
}}
"""


def nginx(folder, workers, ports, origin_port):
    plain, tls, http2 = ports
    keys = " ".join(f'"key-{n}" {n};' for n in range(TENANTS))
    orgs = " ".join(f'{n} "org-{n}";' for n in range(TENANTS))
    arguments = "|".join(f"$arg_{name}" for name in PARAMETERS)
    return f"""daemon off; worker_processes {workers}; pid {folder}/nginx-{workers}.pid; error_log {folder}/nginx-{workers}.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; underscores_in_headers on;
  map_hash_bucket_size 128; map_hash_max_size 4096;
  map $http_x_api_key $tenant {{ default ""; {keys} }}
  map $tenant $org_key {{ default ""; {orgs} }}
  limit_req_zone "$tenant:$http_linked_account_id" zone=accounts:10m rate=1000000r/s;
  proxy_cache_path {folder}/nginx-cache-{workers} levels=1:2 keys_zone=pages:32m max_size=256m inactive=10m use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; keepalive_requests 100000000; }}
  ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2; listen 127.0.0.1:{http2} http2;
    location {PATH} {{
      if ($tenant = "") {{ return 401; }}
      limit_req zone=accounts burst=1000000 nodelay;
      proxy_cache pages; proxy_cache_lock on; proxy_cache_valid 200 60s; proxy_ignore_headers Cache-Control Expires;
      proxy_cache_key "$tenant|$http_linked_account_id|{arguments}";
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header x-api-key $org_key;
      proxy_pass http://origin;
      add_header Cache-Control "private, max-age=5"; add_header Cache-Status $upstream_cache_status;
      add_header RateLimit-Policy '"default";q=100;w=60'; add_header x-request-id $request_id;
    }}
  }}
}}
"""


def haproxy_map():
    return "".join(f"key-{n} org-{n}\n" for n in range(TENANTS))


def haproxy(folder, workers, ports, origin_port):
    """The key of haproxy's cache is the target, so it has the tenant and the linked account until the look-up."""
    plain, tls, http2 = ports
    return f"""global
  nbthread {workers}
  maxconn 4096
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 2s
cache pages
  total-max-size 256
  max-object-size 100000
  max-age 60
backend accounts
  stick-table type string len 128 size 100k expire 60s store http_req_rate(1s)
frontend callers
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {folder}/haproxy.pem alpn h2,http/1.1
  bind 127.0.0.1:{http2} proto h2
  http-request set-var(txn.org) req.hdr(x-api-key),map_str({folder}/haproxy.map)
  http-request return status 401 unless {{ var(txn.org) -m found }}
  http-request set-var(txn.account) req.hdr(linked_account_id)
  http-request set-var(txn.client) var(txn.org),concat(:,txn.account)
  http-request track-sc0 var(txn.client) table accounts
  http-request deny deny_status 429 if {{ sc0_http_req_rate(accounts) gt 100000000 }}
  http-request set-var(txn.query) query
  http-request set-query "%[query]&t=%[var(txn.org)]&a=%[var(txn.account)]"
  http-request set-header x-api-key %[var(txn.org)]
  default_backend origin
  http-after-response set-header cache-control "private, max-age=5"
  http-after-response set-header cache-status "hit" if {{ res.cache_hit }}
  http-after-response set-header ratelimit-policy '"default";q=100;w=60'
  http-after-response set-header x-request-id %[uuid()]
backend origin
  http-request cache-use pages
  http-request set-query %[var(txn.query)]
  http-response set-header cache-control "max-age=60"
  http-response cache-store pages
  http-reuse always
  server origin 127.0.0.1:{origin_port}
"""


def varnish(origin_port):
    """VCL has no maps, so the keys are compared one by one; callers use the first twenty."""
    keys = " else ".join(
        f'if (req.http.x-api-key == "key-{n}") {{ set req.http.x-api-key = "org-{n}"; }}' for n in range(TENANTS)
    )
    return f"""vcl 4.1;
import vsthrottle;
backend origin {{ .host = "127.0.0.1"; .port = "{origin_port}"; }}
sub vcl_recv {{
  {keys} else {{ return (synth(401)); }}
  if (vsthrottle.is_denied(req.http.x-api-key + ":" + req.http.linked_account_id, 1000000, 1s)) {{ return (synth(429)); }}
  return (hash);
}}
sub vcl_hash {{
  hash_data(req.url); hash_data(req.http.x-api-key); hash_data(req.http.linked_account_id);
  return (lookup);
}}
sub vcl_backend_response {{ set beresp.ttl = 60s; set beresp.grace = 10s; return (deliver); }}
sub vcl_deliver {{
  set resp.http.cache-control = "private, max-age=5";
  if (obj.hits > 0) {{ set resp.http.cache-status = "hit"; }}
  set resp.http.ratelimit-policy = {{""default";q=100;w=60"}};
  set resp.http.x-request-id = req.xid;
}}
"""
