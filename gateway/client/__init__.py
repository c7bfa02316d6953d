"""A client of the gateway for backends in Python: `Gateway`, and `AsyncGateway` for asyncio. See docs/clients.md."""

from gateway.client.asynchronous import AsyncGateway
from gateway.client.blocking import Gateway
from gateway.client.flows import Session
from gateway.client.problem import FieldProblem, GatewayProblem, GatewayUnreachable
from gateway.client.shapes import Ended, Invite, InviteMade, JoinToken, Member, RateLimit, Room, User

__all__ = [
    "AsyncGateway",
    "Ended",
    "FieldProblem",
    "Gateway",
    "GatewayProblem",
    "GatewayUnreachable",
    "Invite",
    "InviteMade",
    "JoinToken",
    "Member",
    "RateLimit",
    "Room",
    "Session",
    "User",
]
