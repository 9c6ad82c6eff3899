"""Every RPC of the protos has exactly one typed client method, of the RPC's own types and path."""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from onecard.v1 import (
    authorization_pb2,
    card_authentication_pb2,
    cards_pb2,
    cryptography_pb2,
    identity_pb2,
    keys_pb2,
    rules_pb2,
    settlement_pb2,
)

from clients import services
from clients.channel import UnaryRpc
from clients.events import ServerStreamRpc
from clients.frames import StreamRpc
from clients.service_client import OneCardClient

FILES = (
    authorization_pb2,
    card_authentication_pb2,
    cards_pb2,
    cryptography_pb2,
    identity_pb2,
    keys_pb2,
    rules_pb2,
    settlement_pb2,
)
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
UNARY = [method for method in METHODS if not method.client_streaming and not method.server_streaming]
ANSWERED_BY_STREAM = [method for method in METHODS if not method.client_streaming and method.server_streaming]
STREAMING = [method for method in METHODS if method.client_streaming]


# What the modules of the services declare, each RPC where it stands.
RPCS: list[Any] = [
    value
    for info in pkgutil.iter_modules(services.__path__)
    for value in vars(importlib.import_module(f"{services.__name__}.{info.name}")).values()
    if isinstance(value, UnaryRpc | StreamRpc | ServerStreamRpc)
]


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def test_every_proto_file_with_a_service_is_looked_at() -> None:
    import onecard.v1

    modules = {info.name for info in pkgutil.iter_modules(onecard.v1.__path__) if info.name.endswith("_pb2")}
    assert {file.__name__.rpartition(".")[2] for file in FILES} == modules - {"common_pb2"}


def test_client_has_one_method_for_each_rpc_and_no_other() -> None:
    names = [snake_case(method.name) for method in METHODS]
    assert len(set(names)) == len(names)
    public = {name for name, _ in inspect.getmembers(OneCardClient, inspect.isfunction) if name[0] != "_"}
    assert public == set(names)


@pytest.mark.parametrize("method", UNARY, ids=path_of)
def test_unary_rpc_has_its_own_path_and_types(method: MethodDescriptor) -> None:
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    rpcs = [value for value in RPCS if isinstance(value, UnaryRpc)]
    (rpc,) = [rpc for rpc in rpcs if rpc.path == path_of(method)]
    assert (rpc.request_type, rpc.response_type) == (request, response)
    function = getattr(OneCardClient, snake_case(method.name))
    hints = typing.get_type_hints(function)
    assert (hints["request"], hints["return"]) == (request, response)
    # The method calls the RPC of its name, and only that.
    constant = snake_case(method.name).upper()
    assert constant in inspect.getsource(function)
    assert getattr(inspect.getmodule(function), constant) is rpc


@pytest.mark.parametrize("method", STREAMING, ids=path_of)
def test_streaming_rpc_has_its_own_path_and_types(method: MethodDescriptor) -> None:
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    rpcs = [value for value in RPCS if isinstance(value, StreamRpc)]
    (rpc,) = [rpc for rpc in rpcs if rpc.path == path_of(method)]
    assert (rpc.request_type, rpc.response_type) == (request, response)
    function = getattr(OneCardClient, snake_case(method.name))
    hints = typing.get_type_hints(function)
    assert hints["frames"] == AsyncIterable[request]
    assert hints["return"] == AsyncIterator[response]
    constant = snake_case(method.name).upper()
    assert constant in inspect.getsource(function)
    assert getattr(inspect.getmodule(function), constant) is rpc


@pytest.mark.parametrize("method", ANSWERED_BY_STREAM, ids=path_of)
def test_rpc_answered_by_a_stream_has_its_own_path_and_types(method: MethodDescriptor) -> None:
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    rpcs = [value for value in RPCS if isinstance(value, ServerStreamRpc)]
    (rpc,) = [rpc for rpc in rpcs if rpc.path == path_of(method)]
    assert (rpc.request_type, rpc.response_type) == (request, response)
    function = getattr(OneCardClient, snake_case(method.name))
    hints = typing.get_type_hints(function)
    assert (hints["request"], hints["return"]) == (request, AsyncGenerator[response, None])
    constant = snake_case(method.name).upper()
    assert constant in inspect.getsource(function)
    assert getattr(inspect.getmodule(function), constant) is rpc


def test_no_unary_rpc_is_declared_twice() -> None:
    paths = [value.path for value in RPCS if isinstance(value, UnaryRpc)]
    assert sorted(paths) == sorted(path_of(method) for method in UNARY)
