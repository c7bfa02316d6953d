"""The policy: what each role allows, read from policy.toml."""
