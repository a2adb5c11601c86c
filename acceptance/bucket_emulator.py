"""An emulator of Google Cloud Storage in memory: `python bucket_emulator.py PORT`.

Added to gcp-storage-emulator: the generations of objects, by which TensorStore notices that another
process has written, and a longer line of connections that wait: a checkpoint makes many at once.
"""

import http.server
import sys
import time
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server


def generation(storage, bucket, name) -> int:
    """Return the generation of an object: 0 if there is none."""
    try:
        return int(storage.get_file_obj(bucket, name)["generation"])
    except NotFound:
        return 0


def download(request, response, storage, original=objects.download):
    """Answer with the object, and its generation."""
    where = request.params["bucket_name"], request.params["object_id"]
    if found := generation(storage, *where):
        response["x-goog-generation"] = str(found)
    original(request, response, storage)


def upload(request, response, storage, original=objects._media_upload):
    """Write the object, if it has the generation that the writer expects."""
    expected = request.query.get("ifGenerationMatch")
    where = request.params["bucket_name"], request.query["name"][0]
    if expected and int(expected[0]) != generation(storage, *where):
        response.status = HTTPStatus.PRECONDITION_FAILED
    else:
        original(request, response, storage)


if __name__ == "__main__":
    objects.download, objects._media_upload = download, upload
    http.server.HTTPServer.request_queue_size = 128
    create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
    while True:
        time.sleep(1)
