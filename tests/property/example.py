"""The example of the design: one document with every section, as a person would write it."""

EXAMPLE = """\
labels:                      # the vocabulary: one value per key on a workload; keys not listed here are refused
  app:  {}
  role: {}
  env:  {values: [prod, staging, dev]}
  pci:  {values: [cde, connected, security, out]}

services:
  postgres:  tcp/5432
  web:       [tcp/80, tcp/443]
  read-api:  {ports: tcp/8080, http: {methods: [GET, HEAD], paths: ["/v1/*"]}}
  plc-read:  {ports: tcp/502, modbus: {functions: read}}

networks:
  office:    [10.20.0.0/16, "2001:db8:20::/48"]
  github:    {names: ["*.github.com"]}

workloads:                   # things without an agent, declared; those with one declare themselves
  plc-7:     {addresses: [10.9.0.11], labels: {role: plc, app: press}}

rules:
  - id: app-to-db
    allow: postgres
    from: role=api
    to: role=db
    same: [app, env]         # both ends share the value: one rule serves every app in every environment
    reason: each app reads its own database
    owner: data-platform
  - id: no-dev-in-prod
    deny: any
    from: env=dev
    to: env=prod
  - id: smb-wall
    wall: tcp/445            # from here on SMB needs a door, even where the rest is not yet enforced
    from: any
    to: any
  - id: web-as-www-data
    allow: web
    from: {workloads: role=web, as: {user: www-data}}
    to: [network:office, role=proxy]
    starts: 2026-01-01T00:00:00Z
    expires: 2040-12-01T00:00:00+01:00
    ticket: 4711
    log: true
    staged: false

lifelines:
  - id: ssh-from-office
    allow: tcp/22
    from: network:office
    to: any

modes:                       # the most specific selector wins; ties are refused
  - {where: "", mode: observe}
  - {where: "app=shop,env=prod", mode: enforce}

tests:
  - id: cardholder-data
    only: role=payment
    may-reach: pci=cde
  - id: dashboard-works
    from: app=grafana
    can: postgres
    to: app=shop,role=db
    canary: true
  - id: dev-stays-out
    from: env=dev
    cannot: any
    to: env=prod
"""
