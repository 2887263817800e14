"""The local stack's own accounts: a small OpenID provider. In production a government's own (统一身份认证) is there."""
