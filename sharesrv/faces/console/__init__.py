"""The console: pages on the HTTP port in which an operator sees what the server does, who can reach what, and ends it.

Closed, 404, unless `auth.admin_token` is set. Every page is whole without scripts, its links and forms too; htmx exchanges
parts of it where it runs. Nothing is inline, and nothing comes from another host: see `HEADERS` in `pages`.
"""

from sharesrv.faces.console.routes import PAGES as PAGES
