"""Makes a service of AWS Cloud Map, and registers its instances, at another endpoint than AWS' own.

usage: cloud_map.py URL create
       cloud_map.py URL register INSTANCE NAME=VALUE ...
"""

import sys

import boto3

NAMESPACE, SERVICE = "shop", "forebay"


def main(url, action, *arguments):
    client = boto3.client(
        "servicediscovery",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    {"create": create, "register": register}[action](client, *arguments)


def create(client):
    client.create_http_namespace(Name=NAMESPACE)
    [namespace] = [found for found in client.list_namespaces()["Namespaces"] if found["Name"] == NAMESPACE]
    client.create_service(Name=SERVICE, NamespaceId=namespace["Id"])


def register(client, instance, *attributes):
    [service] = [found for found in client.list_services()["Services"] if found["Name"] == SERVICE]
    client.register_instance(
        ServiceId=service["Id"],
        InstanceId=instance,
        Attributes=dict(attribute.split("=", 1) for attribute in attributes),
    )


main(*sys.argv[1:])
