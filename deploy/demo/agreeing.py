"""An agreement from application to use: what two departments' people do, one after the other."""

from __future__ import annotations

from typing import Any

from bus.client import GatewayClient


async def agree(provider: GatewayClient, consumer: GatewayClient, application: dict[str, Any]) -> dict[str, Any]:
    """The active agreement of an application (`POST /v1/agreements`) that the provider has nothing against."""
    made: dict[str, Any] = await consumer.post_json("/v1/agreements", application)
    for who, act in ((provider, "ACCEPT"), (provider, "APPROVE"), (provider, "PROVISION"), (consumer, "ACTIVATE")):
        made = await who.post_json("/v1/agreements:act", {"id": made["id"], "act": act})
    return made
