"""Mathematics of linear attention that several mixers share: each fast path beside its plain reference."""
